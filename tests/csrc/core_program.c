/* Programs: training and prediction in batches, on one to four lanes. */
#include "reference.h"

enum { ROWS = 200, BATCH = 64, FEATURES = 40, HIDDEN = 128, BATCHES = 4 }; /* the last batch has 8 rows */
enum { ARENA, X, Y, INDEX, PARAMETERS, RATES, LOSS, PREDICTIONS, BUFFERS };
enum { W1 = 0, B1 = W1 + FEATURES * HIDDEN, W2 = B1 + HIDDEN, B2 = W2 + HIDDEN, COUNT = B2 + 1 };

static float x_data[ROWS * FEATURES], y_data[ROWS], start[COUNT], rates[BATCHES];
static int64_t index_data[ROWS];

struct net {
    struct step steps[16];
    struct binding bindings[80];
    struct program program;
    int64_t arena_size;
    float *arena, parameters[COUNT], predictions[ROWS];
    double loss;
    void *bases[BUFFERS];
};

/* An array of a step: `place` a buffer, or ARENA with its own offset. */
struct operand {
    int buffer, stream, bytes;
    int64_t offset; /* elements */
    int rank, batch;
    int64_t rows, columns;
};

static struct operand in_arena(struct net *net, int64_t rows, int64_t columns, int batch)
{
    struct operand o = {ARENA, 0, 4, net->arena_size, columns ? 2 : 1, batch, rows, columns};
    net->arena_size += (rows * (columns ? columns : 1) + 15) / 16 * 16;
    return o;
}

static struct operand parameter(int64_t offset, int64_t rows, int64_t columns)
{
    return (struct operand){PARAMETERS, 0, 4, offset, columns ? 2 : 1, 0, rows, columns};
}

static struct step *add_step(struct net *net, const char *op, double work, int outputs, int inputs, const struct operand *o)
{
    struct program *p = &net->program;
    struct step *s = &net->steps[p->n_steps];
    CHECK((s->run = dispatch_kernel(op)) != NULL, "%s", op);
    s->outputs = outputs;
    s->inputs = inputs;
    s->work = work;
    for (int i = 0; i < outputs + inputs; i++, o++) {
        struct tensor *t = tensor_of(s, i);
        t->rank = o->rank;
        t->batch = o->batch;
        t->size[0] = o->rows;
        t->size[1] = o->columns;
        int64_t advance = o->bytes * (o->rank == 2 ? o->columns : 1) * (o->batch ? 1 : o->rows);
        program_bind(p, (struct binding){p->n_steps, i, o->buffer, o->stream, o->offset * o->bytes, advance});
    }
    p->n_steps++;
    return s;
}
#define STEP(op, work, outputs, inputs, ...) add_step(net, op, work, outputs, inputs, (const struct operand[]){__VA_ARGS__})

/* Builds the program of one batch: of training, or of prediction into a buffer in the order of the rows. */
static void build(struct net *net, int training)
{
    memset(net, 0, sizeof *net);
    net->program = (struct program){.steps = net->steps, .bindings = net->bindings, .batch = BATCH};
    const double work = 2.0 * BATCH * FEATURES * HIDDEN; /* of the wide products: worth sharing in a full batch only */
    const struct operand all_x = {X, 0, 4, 0, 2, 0, ROWS, FEATURES}, all_y = {Y, 0, 4, 0, 2, 0, ROWS, 1};
    const struct operand index = {INDEX, 1, 8, 0, 1, 1, BATCH, 0}, rate = {RATES, 1, 4, 0, 1, 0, 1, 0};
    const struct operand loss = {LOSS, 0, 8, 0, 1, 0, 1, 0}, out = {PREDICTIONS, 1, 4, 0, 2, 1, BATCH, 1};
    const struct operand w1 = parameter(W1, FEATURES, HIDDEN), b1 = parameter(B1, HIDDEN, 0);
    const struct operand w2 = parameter(W2, HIDDEN, 1), b2 = parameter(B2, 1, 0), all = parameter(0, COUNT, 0);
    const struct operand x = in_arena(net, BATCH, FEATURES, 1), h = in_arena(net, BATCH, HIDDEN, 1);
    STEP("gather", 0, 1, 2, x, all_x, index);
    STEP("dense", work, 1, 3, h, x, w1, b1)->attr.activation = ACT_relu;
    if (!training) {
        STEP("dense", 0, 1, 3, out, h, w2, b2);
    } else {
        const struct operand y = in_arena(net, BATCH, 1, 1), z = in_arena(net, BATCH, 1, 1), rows = in_arena(net, BATCH, 0, 1);
        const struct operand seed = in_arena(net, BATCH, 0, 1), dz = in_arena(net, BATCH, 1, 1);
        const struct operand dh = in_arena(net, BATCH, HIDDEN, 1), g = in_arena(net, COUNT, 0, 0);
        struct operand dw1 = g, db1 = g, dw2 = g, db2 = g;
        dw1 = (struct operand){ARENA, 0, 4, g.offset + W1, 2, 0, FEATURES, HIDDEN};
        db1.offset += B1;
        db1.rows = HIDDEN;
        dw2 = (struct operand){ARENA, 0, 4, g.offset + W2, 2, 0, HIDDEN, 1};
        db2.offset += B2;
        db2.rows = 1;
        STEP("gather", 0, 1, 2, y, all_y, index);
        STEP("dense", 0, 1, 3, z, h, w2, b2);
        STEP("sigmoid_crossentropy", 0, 1, 2, rows, z, y);
        STEP("accumulate", SHARED, 1, 1, loss, rows);
        STEP("mean_seed", 0, 1, 1, seed, rows);
        STEP("sigmoid_crossentropy_dx", 0, 1, 3, dz, seed, z, y);
        STEP("matmul_tn", 0, 1, 2, dw2, h, dz);
        STEP("sum_rows", 0, 1, 1, db2, dz);
        STEP("dense_dx", 0, 1, 3, dh, dz, w2, h)->attr.activation = ACT_relu;
        STEP("matmul_tn", work, 1, 2, dw1, x, dh);
        STEP("sum_rows", SHARED, 1, 1, db1, dh);
        STEP("sgd", SHARED, 1, 2, all, g, rate);
    }
    net->arena = malloc((size_t)net->arena_size * 4);
    memset(net->arena, 0xff, (size_t)net->arena_size * 4);
    memcpy(net->parameters, start, sizeof start);
    memset(net->predictions, 0xff, sizeof net->predictions);
    void *bases[BUFFERS] = {net->arena, x_data, y_data, index_data, net->parameters, rates, &net->loss, net->predictions};
    memcpy(net->bases, bases, sizeof bases);
}

static void make_data(void)
{
    for (int i = 0; i < ROWS * FEATURES; i++) x_data[i] = uniform(-1, 1);
    for (int i = 0; i < ROWS; i++) y_data[i] = (float)(x_data[i * FEATURES] > 0);
    for (int i = 0; i < COUNT; i++) start[i] = uniform(-0.2, 0.2);
    for (int i = 0; i < BATCHES; i++) rates[i] = 0.1f / (float)(i + 1);
    for (int i = 0; i < ROWS; i++) index_data[i] = i * 77 % ROWS;
}

/* The same training in double precision. Returns the sum of the losses. */
static double train_reference(double *p)
{
    double loss = 0;
    for (int i = 0; i < COUNT; i++) p[i] = start[i];
    for (int k = 0; k < BATCHES; k++) {
        const int first = k * BATCH, last = first + BATCH < ROWS ? first + BATCH : ROWS;
        static double g[COUNT];
        memset(g, 0, sizeof g);
        for (int i = first; i < last; i++) {
            const float *x = x_data + index_data[i] * FEATURES;
            double h[HIDDEN], y = y_data[index_data[i]], z = p[B2];
            for (int j = 0; j < HIDDEN; j++) {
                h[j] = p[B1 + j];
                for (int f = 0; f < FEATURES; f++) h[j] += x[f] * p[W1 + f * HIDDEN + j];
                h[j] = fmax(h[j], 0);
                z += h[j] * p[W2 + j];
            }
            loss += fmax(z, 0) - z * y + log1p(exp(-fabs(z)));
            const double dz = (logistic(z) - y) / (last - first);
            g[B2] += dz;
            for (int j = 0; j < HIDDEN; j++) {
                const double dh = h[j] > 0 ? dz * p[W2 + j] : 0;
                g[W2 + j] += dz * h[j];
                g[B1 + j] += dh;
                for (int f = 0; f < FEATURES; f++) g[W1 + f * HIDDEN + j] += x[f] * dh;
            }
        }
        for (int i = 0; i < COUNT; i++) p[i] -= (double)rates[k] * g[i];
    }
    return loss;
}

static void training_gives_the_same_bits_on_any_number_of_lanes(void)
{
    static struct net first, other;
    static double expected[COUNT];
    const double loss = train_reference(expected);
    /* A product of up to HIDDEN terms below 1, a few roundings more on the way through the network, every batch. */
    const double slack = BATCHES * (HIDDEN + 16) * EPS;
    for (int lanes = 1; lanes <= LANES; lanes++) {
        struct net *net = lanes == 1 ? &first : &other;
        CHECK(team_set_size(lanes) == 0, "%d", lanes);
        build(net, 1);
        CHECK(program_run(&net->program, net->bases, 0, BATCHES, BATCH, ROWS, 0) == BATCHES, "all batches");
        for (int i = 0; i < COUNT && lanes == 1; i++)
            CHECK(fabs(net->parameters[i] - expected[i]) < slack, "parameter %d", i);
        CHECK(fabs(net->loss - loss) < slack * ROWS, "%.9g instead of %.9g", net->loss, loss);
        CHECK(!memcmp(net->parameters, first.parameters, sizeof first.parameters), "%d lanes", lanes);
        CHECK(net->loss == first.loss, "%d lanes", lanes);
        free(net->arena);

        build(&other, 1); /* one batch at a time */
        for (int64_t k = 0; k < BATCHES; k++)
            CHECK(program_run(&other.program, other.bases, k, k + 1, BATCH, ROWS, 0) == k + 1, "batch %d", (int)k);
        CHECK(!memcmp(other.parameters, first.parameters, sizeof first.parameters), "in pieces, %d lanes", lanes);
        free(other.arena);
    }
}

static void a_time_limit_stops_between_batches(void)
{
    static struct net whole, net;
    for (int lanes = 1; lanes <= 2; lanes++) {
        CHECK(team_set_size(lanes) == 0, "%d", lanes);
        build(&whole, 1);
        CHECK(program_run(&whole.program, whole.bases, 0, BATCHES, BATCH, ROWS, 1e3) == BATCHES, "time enough");
        build(&net, 1);
        int64_t k = 0;
        for (int calls = 1; k < BATCHES; calls++) {
            const int64_t next = program_run(&net.program, net.bases, k, BATCHES, BATCH, ROWS, 1e-9);
            CHECK(next == k + 1, "one batch at least, and no more: %d after %d", (int)next, (int)k);
            k = next;
        }
        CHECK(!memcmp(net.parameters, whole.parameters, sizeof net.parameters), "%d lanes", lanes);
        CHECK(program_run(&net.program, net.bases, BATCHES, BATCHES, BATCH, ROWS, 0) == BATCHES, "nothing to do");
        free(whole.arena);
        free(net.arena);
    }
}

static void predictions_do_not_depend_on_batches_and_lanes(void)
{
    static struct net net, lane_nets[LANES];
    static float first[ROWS];
    static const int64_t batches[] = {BATCH, 1, 7, 50};
    for (int lanes = 1; lanes <= LANES; lanes++) {
        CHECK(team_set_size(lanes) == 0, "%d", lanes);
        for (int i = 0; i < 4; i++) {
            const int64_t batch = batches[i], count = (ROWS + batch - 1) / batch;
            build(&net, 0);
            CHECK(program_run(&net.program, net.bases, 0, count, batch, ROWS, 0) == count, "all batches");
            if (lanes == 1 && i == 0) memcpy(first, net.predictions, sizeof first);
            CHECK(!memcmp(net.predictions, first, sizeof first), "batches of %d on %d lanes", (int)batch, lanes);
            free(net.arena);

            struct program *programs[LANES];
            void *const *bases[LANES];
            for (int l = 0; l < lanes; l++) {
                build(&lane_nets[l], 0);
                lane_nets[l].bases[PREDICTIONS] = lane_nets[0].predictions;
                programs[l] = &lane_nets[l].program;
                bases[l] = lane_nets[l].bases;
            }
            program_run_apart(programs, bases, lanes, count, batch, ROWS);
            CHECK(!memcmp(lane_nets[0].predictions, first, sizeof first), "apart, %d lanes", lanes);
            for (int l = 0; l < lanes; l++) free(lane_nets[l].arena);
        }
    }
}

static void timing_runs_every_step_once(void)
{
    static struct net timed, net;
    for (int lanes = 1; lanes <= LANES; lanes++)
        for (int64_t rows = 8; rows <= BATCH; rows += BATCH - 8) {
            double seconds[16];
            CHECK(team_set_size(lanes) == 0, "%d", lanes);
            build(&timed, 1);
            build(&net, 1);
            program_begin(&timed.program, timed.bases, 0, BATCH, rows);
            program_time(&timed.program, rows, 0, timed.program.n_steps, seconds);
            CHECK(program_run(&net.program, net.bases, 0, 1, BATCH, rows, 0) == 1, "one batch");
            CHECK(!memcmp(timed.parameters, net.parameters, sizeof net.parameters), "%d lanes", lanes);
            for (int i = 0; i < timed.program.n_steps; i++) CHECK(seconds[i] >= 0 && seconds[i] < 60, "step %d", i);
            free(timed.arena);
            free(net.arena);
        }
}

static void stretches_of_steps_give_the_bits_of_a_run(void)
{
    static struct net pieces, net;
    for (int lanes = 1; lanes <= LANES; lanes++)
        for (int size = 1; size <= 5; size += 2) {
            CHECK(team_set_size(lanes) == 0, "%d", lanes);
            build(&net, 1);
            build(&pieces, 1);
            CHECK(program_run(&net.program, net.bases, 0, BATCHES, BATCH, ROWS, 0) == BATCHES, "all batches");
            for (int64_t k = 0; k < BATCHES; k++) {
                const int64_t rows = ROWS - k * BATCH < BATCH ? ROWS - k * BATCH : BATCH;
                program_begin(&pieces.program, pieces.bases, k, BATCH, ROWS);
                for (int from = 0; from < pieces.program.n_steps; from += size) {
                    const int to = from + size < pieces.program.n_steps ? from + size : pieces.program.n_steps;
                    program_steps(&pieces.program, rows, from, to);
                }
            }
            CHECK(!memcmp(pieces.parameters, net.parameters, sizeof net.parameters), "%d at a time, %d lanes", size, lanes);
            CHECK(pieces.loss == net.loss, "%d at a time, %d lanes", size, lanes);
            free(pieces.arena);
            free(net.arena);
        }
}

void test_programs(void)
{
    make_data();
    training_gives_the_same_bits_on_any_number_of_lanes();
    a_time_limit_stops_between_batches();
    predictions_do_not_depend_on_batches_and_lanes();
    timing_runs_every_step_once();
    stretches_of_steps_give_the_bits_of_a_run();
}
