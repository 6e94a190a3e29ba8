/* Updates. */
#include "reference_update.h"

static void updates_are_right(void)
{
    static const struct {
        const char *name, *shapes;
        reference *expected;
        int squares; /* the output that is a mean of squares */
    } updates[] = {
        {"sgd", "p=p,1", ref_momentum, -1},         {"momentum", "p,p=p,1", ref_momentum, -1},
        {"adam", "p,p,p=p,2", ref_adam, 2},         {"adamw", "p,p,p=p,2", ref_adamw, 2},
        {"rmsprop", "p,p=p,1", ref_rmsprop, 1},     {"rmsprop_momentum", "p,p,p=p,1", ref_rmsprop, 1},
    };
    for (int which = 0; which < 6; which++)
        for (int l = 0; l < 2 * N_LENGTHS; l++) {
            const struct sizes z = {.p = lengths[l / 2]};
            struct step s = make(updates[which].name, updates[which].shapes, z);
            s.attr.momentum = which == 0 || which == 4 ? 0 : 0.9;
            s.attr.nesterov = l % 2 && which == 1;
            s.attr.beta_1 = 0.9;
            s.attr.beta_2 = 0.999;
            s.attr.rho = 0.9;
            s.attr.epsilon = 1e-7;
            s.attr.weight_decay = 0.04;
            for (int o = 0; o < s.outputs; o++) fill(&s.out[o], o == updates[which].squares ? 0.1 : -1, 1);
            ((float *)s.in[1].data)[0] = 0.01f;
            if (s.in[1].size[0] > 1) ((float *)s.in[1].data)[1] = 0.02f;
            if (l % 2) { /* a parameter that has never had a gradient */
                ((float *)s.in[0].data)[0] = 0;
                for (int o = 1; o < s.outputs; o++) ((float *)s.out[o].data)[0] = 0;
            }
            check(&s, updates[which].name, updates[which].expected, 0);
        }
}

static void averages_move(void)
{
    for (int l = 0; l < N_LENGTHS; l++) {
        const struct sizes z = {.p = lengths[l]};
        struct step s = make("moving_average", "p=p", z);
        s.attr.momentum = 0.99;
        fill(&s.out[0], -1, 1);
        check(&s, "moving_average", ref_moving_average, 0);
    }
}

void test_updates(void)
{
    updates_are_right();
    averages_move();
}
