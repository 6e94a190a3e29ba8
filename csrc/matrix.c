/* Matrix products, and the dense layer made of them. N rows, which lie along all axes but the last, K summed, F outputs;
 * the product itself is C (M, N) = A (M, K) B (K, N), whatever the three stand for.
 *
 * One microkernel does all of it: a tile of C, MR rows by NV vectors, stays in registers while k runs. A is read one
 * number at a time through a row stride and a k stride (so A or its transpose), B a vector at a time, from the matrix
 * itself or from a panel packed for the purpose (which also turns a transposed B round and fills up ragged columns).
 * Each element of C is the sum of chains of multiply-adds, at most KC of them long, in the order of k; then comes the bias, then
 * the activation. Its bits depend on nothing but its row of A and its column of B: not on the tile or block it falls in,
 * on the size of the batch or the number of threads.
 */

#if defined(ISA_AVX512)
enum { MR = 14, NV = 2 }; /* 28 sums + 2 of B + 1 of A in 32 registers */
#elif defined(ISA_AVX2)
enum { MR = 6, NV = 2 }; /* 12 + 2 + 1 in 16 */
#elif defined(ISA_NEON)
enum { MR = 8, NV = 3 }; /* 24 + 3 + 2 in 32 */
#else
enum { MR = 4, NV = 2 }; /* 8 + 2 + 1 and a product in 16 */
#endif

enum {
    NR = NV * VL,   /* columns of a panel */
    KC = 400,       /* k's of a panel: a tile's rows of A stay in the first-level cache */
    NC = 16 * NR,   /* most columns of a block: its packed panels stay in the second-level cache */
    /* A product is not cut smaller than this for the threads. Rows are cut finer where B is constant: each thread then
     * has all of it in its own cache. */
    BLOCK_ROWS = 256, BLOCK_COLUMNS = 4 * NR,
    FAR = 1 << 18, /* numbers of C from which on it is not in the second-level cache */
    MANY_ROWS = 4096, /* sums of so many terms are worth sharing out even if there are few of them */
    B_SMALL = 128 << 10, /* numbers of B that stay in the second-level cache beside A and C */
    PACK_ROWS = 40, /* from so many rows on, a B that could be read where it lies is packed */
    B_LARGE = 1 << 19, /* numbers of B that do not stay in the second-level cache: */
    FEW_ROWS = 3,      /* from so many rows on it is packed row by row, as it lies in memory */
    ROWS_AHEAD = 2,    /* and asked for ahead of that */
    ROWS_AT_ONCE = 8,  /* of it meet a single row of A */
};
_Static_assert((MR * KC + VL + NC * KC + VL * NC) * sizeof(float) <= TEAM_SCRATCH, "a block's panels fit in the scratch");

/* Where the numbers of a product come from and what is done to the result. */
struct product {
    int64_t m, n, k;
    const float *a;
    int64_t a_row, a_k;   /* strides of A; one of them is 1 */
    const float *b;
    int64_t ldb;
    int b_transposed;     /* B[k][j] at b[j * ldb + k], else at b[k * ldb + j] */
    float *c;             /* (m, n of ldc) */
    int64_t ldc;
    const float *bias;    /* (n) or NULL */
    int32_t activation;   /* applied to C + bias */
    int64_t block_rows;   /* fewest rows of a thread's part, if rows are what is shared out */
    const float *dx_of;   /* laid out like C, or NULL: multiply C by the slope of `activation` where its output is this */
};

/* ---- one tile ---- */

struct tile {
    int64_t k;
    const float *a;
    int64_t stride; /* of A: of its rows if its k's lie side by side, else of its k's */
    const float *b;
    int64_t ldb;
    float *panel;   /* where COPYING leaves B, packed */
    float *c;
    int64_t ldc;
    int64_t last;   /* columns of the last vector */
    int first;      /* C is overwritten, else added to */
    int relu;
    const float *bias;
    const float *gate; /* where this, shaped like C, is not positive, C becomes 0: the slope of relu */
    int far;           /* C is not in the cache, small as the product may be */
    const float *fetch; /* the cache lines from here on are going to be needed, one is asked for at each k; or NULL */
    /* SEGMENTS of A, each of k numbers of the sum, `skip` numbers apart; after every `turn` of them comes a jump of
     * `turn_skip` numbers more, after every `bend` turns one of `bend_skip`. B goes on from one to the next. */
    int64_t segments, turn, bend, skip, turn_skip, bend_skip;
};

/* How A lies: the k's of a row side by side; or the rows of a k; or so, and B is copied into a panel on the way, its
 * loads ahead of their use by AHEAD k's; or the first two in segments, which fetch nothing; or the first of these, which
 * does. */
enum { ALONG_K, ALONG_ROWS, COPYING, SEGMENTS_ALONG_K, SEGMENTS_ALONG_ROWS, SEGMENTS_FETCHING, KINDS, AHEAD = 12, LONG = 100, CACHE_LINE = 16 };

/* C (rows, nv vectors) = [C +] A (rows, k) B (k, nv vectors), then bias, relu, gate; kind, rows and nv are constants.
 * Rows of A that are apart are addressed three to a pointer. */
INLINE void tile(const int kind, const int rows, const int nv, const struct tile *t)
{
    vf sum[MR][NV];
    UNROLL for (int i = 0; i < rows; i++) {
        UNROLL for (int j = 0; j < nv; j++) sum[i][j] = v_zero();
        if (t->k < LONG && !t->far) continue; /* small: C is in the cache */
        prefetch(t->c + i * t->ldc);
        prefetch(t->c + i * t->ldc + nv * VL - 1);
    }

    const int64_t stride = t->stride, ldb = t->ldb;
    const float *a = t->a, *b = t->b, *row[(MR + 2) / 3];
    float *panel = t->panel;
    const int along_k = kind == ALONG_K || kind == SEGMENTS_ALONG_K || kind == SEGMENTS_FETCHING;
    const int fetching = kind == ALONG_K || kind == ALONG_ROWS || kind == SEGMENTS_FETCHING;
    const float *fetch = t->fetch ? t->fetch : t->b;
    const int64_t line = t->fetch ? CACHE_LINE : 0;
    const int segmented = kind == SEGMENTS_ALONG_K || kind == SEGMENTS_ALONG_ROWS || kind == SEGMENTS_FETCHING;
    int64_t segment = 0, turn = 0, bend = 0;
    do {
        if (segmented && segment == t->segments) break;
        if (along_k) UNROLL for (int i = 0; i < rows; i += 3) row[i / 3] = a + i * stride;
        for (int64_t k = t->k; k > 0; k--) {
            vf right[NV];
            UNROLL for (int j = 0; j < nv; j++) right[j] = v_load(b + j * VL);
            if (kind == COPYING) {
                UNROLL for (int j = 0; j < nv; j++) {
                    v_store(panel + j * VL, right[j]);
                    prefetch(b + AHEAD * ldb + j * VL);
                }
                panel += NR;
            }
            if (fetching) {
                prefetch_far(fetch);
                fetch += line;
            }
            UNROLL for (int i = 0; i < rows; i++) {
                const vf left = v_set(along_k ? row[i / 3][i % 3 * stride] : a[i]);
                UNROLL for (int j = 0; j < nv; j++) sum[i][j] = v_fma(left, right[j], sum[i][j]);
            }
            b += ldb;
            if (along_k) UNROLL for (int i = 0; i < rows; i += 3) row[i / 3]++;
            else a += stride;
        }
        if (!segmented) break;
        if (kind == SEGMENTS_ALONG_ROWS) a -= t->k * stride;
        a += t->skip;
        if (++turn == t->turn) {
            turn = 0;
            a += t->turn_skip;
            if (++bend == t->bend) {
                bend = 0;
                a += t->bend_skip;
            }
        }
    } while (++segment);

    float *c = t->c;
    const int64_t ldc = t->ldc, last = t->last;
    if (!t->first) {
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < nv; j++)
                sum[i][j] = v_load_n(c + i * ldc + j * VL, j + 1 < nv ? VL : last) + sum[i][j];
    }
    if (t->bias) {
        UNROLL for (int j = 0; j < nv; j++) {
            const vf shift = v_load_n(t->bias + j * VL, j + 1 < nv ? VL : last);
            UNROLL for (int i = 0; i < rows; i++) sum[i][j] = sum[i][j] + shift;
        }
    }
    if (t->relu) {
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < nv; j++) sum[i][j] = v_max(v_zero(), sum[i][j]);
    }
    if (t->gate) {
        UNROLL for (int i = 0; i < rows; i++) {
            UNROLL for (int j = 0; j < nv; j++) {
                const vf y = v_load_n(t->gate + i * ldc + j * VL, j + 1 < nv ? VL : last);
                sum[i][j] = v_select(v_less(v_zero(), y), sum[i][j], v_zero());
            }
        }
    }
    if (last == VL) {
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < nv; j++) v_store(c + i * ldc + j * VL, sum[i][j]);
    } else {
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < nv; j++) v_store_n(c + i * ldc + j * VL, sum[i][j], j + 1 < nv ? VL : last);
    }
}

typedef void tile_kernel(const struct tile *t);

#define TILE(kind, nv, rows) \
    static void tile_##kind##_##nv##_##rows(const struct tile *t) { tile(kind, rows, nv, t); }
#define NAME(kind, nv, rows) tile_##kind##_##nv##_##rows,
#define ROWS4(X, kind, nv) X(kind, nv, 1) X(kind, nv, 2) X(kind, nv, 3) X(kind, nv, 4)
#define ROWS6(X, kind, nv) ROWS4(X, kind, nv) X(kind, nv, 5) X(kind, nv, 6)
#define ROWS8(X, kind, nv) ROWS6(X, kind, nv) X(kind, nv, 7) X(kind, nv, 8)
#define ROWS14(X, kind, nv) \
    ROWS8(X, kind, nv) X(kind, nv, 9) X(kind, nv, 10) X(kind, nv, 11) X(kind, nv, 12) X(kind, nv, 13) X(kind, nv, 14)
#if defined(ISA_AVX512)
#define ROWS ROWS14
#elif defined(ISA_AVX2)
#define ROWS ROWS6
#elif defined(ISA_NEON)
#define ROWS ROWS8
#else
#define ROWS ROWS4
#endif
#if defined(ISA_NEON)
#define TILES(kind) ROWS(TILE, kind, 1) ROWS(TILE, kind, 2) ROWS(TILE, kind, 3)
#define NAMES(kind) {{ROWS(NAME, kind, 1)}, {ROWS(NAME, kind, 2)}, {ROWS(NAME, kind, 3)}}
#else
#define TILES(kind) ROWS(TILE, kind, 1) ROWS(TILE, kind, 2)
#define NAMES(kind) {{ROWS(NAME, kind, 1)}, {ROWS(NAME, kind, 2)}}
#endif

TILES(ALONG_K) TILES(ALONG_ROWS) TILES(COPYING) TILES(SEGMENTS_ALONG_K) TILES(SEGMENTS_ALONG_ROWS)
TILES(SEGMENTS_FETCHING)

/* tiles[kind][vectors - 1][rows - 1] */
static tile_kernel *const tiles[KINDS][NV][MR] = {
    NAMES(ALONG_K), NAMES(ALONG_ROWS), NAMES(COPYING), NAMES(SEGMENTS_ALONG_K), NAMES(SEGMENTS_ALONG_ROWS),
    NAMES(SEGMENTS_FETCHING)};

#undef TILE
#undef NAME
#undef ROWS4
#undef ROWS6
#undef ROWS8
#undef ROWS14
#undef ROWS
#undef TILES
#undef NAMES

/* ---- panels ---- */

/* panel (k, NR) = B (k, columns), short rows filled up with zeros. */
static void pack(float *panel, const float *b, int64_t ldb, int64_t k, int64_t columns)
{
    for (int64_t step = 0; step < k; step++, b += ldb, panel += NR) {
        UNROLL for (int j = 0; j < NV; j++) {
            const int64_t left = columns - j * VL;
            v_store(panel + j * VL, left >= VL ? v_load(b + j * VL) : left > 0 ? v_load_part(b + j * VL, left) : v_zero());
        }
    }
}

/* panels = B (k, columns), side by side, a row of B after the other: what comes from memory is read as it lies there. A
 * panel at a time, each of its rows would be on another page. */
static void pack_far(float *panels, const float *b, int64_t ldb, int64_t k, int64_t columns)
{
    for (int64_t step = 0; step < k; step++, b += ldb, panels += NR) {
        float *to = panels;
        for (int64_t column = 0; column < columns; column += NR, to += k * NR) {
            UNROLL for (int j = 0; j < NV; j++) {
                prefetch(b + ROWS_AHEAD * ldb + column + j * VL);
                if (column + j * VL < columns) v_store(to + j * VL, v_load(b + column + j * VL));
            }
        }
    }
}

/* to (k, width) = from (rows, k) turned round; columns rows .. width-1 hold anything. If width < VL, writes up to VL-1
 * numbers more behind its end. */
static void pack_transposed(float *to, int64_t width, const float *from, int64_t ld, int64_t k, int64_t rows)
{
    if (k < VL) {
        for (int64_t step = 0; step < k; step++)
            for (int64_t row = 0; row < rows; row++) to[step * width + row] = from[row * ld + step];
        return;
    }
    for (int64_t row = 0; row < rows; row += VL) {
        /* What the first blocks write too much is overwritten by the following steps; later ones would spoil these. */
        const int64_t left = MR > VL && row ? width - row : VL;
        const float *line[VL];
        for (int j = 0; j < VL; j++) line[j] = from + (row + j < rows ? row + j : rows - 1) * ld;
        for (int64_t step = 0; step < k; step += VL) {
            const int64_t back = k - step < VL ? VL - (k - step) : 0; /* the last block ends with the rows */
            const float *start[VL];
            vf block[VL];
            UNROLL for (int j = 0; j < VL; j++) start[j] = line[j] + step - back;
            v_load_transposed(block, start);
            UNROLL for (int j = 0; j < VL; j++) v_store_n(to + (step - back + j) * width + row, block[j], left);
        }
    }
}

/* to (k, rows) = from (k, rows), closed up. Writes up to VL-1 numbers more behind its end. */
static void pack_rows(float *to, int64_t rows, const float *from, int64_t ld, int64_t k)
{
    for (int64_t step = 0; step < k; step++, to += rows, from += ld)
        for (int64_t r = 0; r < rows; r += VL) v_store(to + r, v_load_n(from + r, rows - r));
}

/* ---- the product ---- */

/* What the next tiles are going to read, brought closer meanwhile: so many cache lines from some places on, in turn. */
struct ahead {
    struct { const float *from; int64_t lines; } part[2];
    int next;
};

/* The first of so many lines for a tile to ask for; NULL if there are none left. */
static const float *take_lines(struct ahead *ahead, int64_t lines)
{
    while (ahead->next < 2 && ahead->part[ahead->next].lines <= 0) ahead->next++;
    if (ahead->next == 2) return NULL;
    const float *from = ahead->part[ahead->next].from;
    ahead->part[ahead->next].from += lines * CACHE_LINE;
    ahead->part[ahead->next].lines -= lines;
    return from;
}

/* Rows m0 .. m1 and columns n0 .. n1 (n0 a multiple of NR), with `scratch` for packed panels.
 *
 * For each KC of the summed axis: the panels of B are packed side by side (they stay in the second-level cache), and
 * tile row after tile row of A is packed (it stays in the first-level cache) and meets all of them. If B lies as it is
 * needed, the first tile row packs it while it works, unless it comes from far. Little work is done without packing, straight from where the
 * matrices lie. If all panels of B are small, a tile row is summed up to its end before the next one. */
static void multiply_block(const struct product *p, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *scratch)
{
    const int64_t rows = m1 - m0, tall = (rows + MR - 1) / MR; /* as few tiles as possible, as even as possible */
    const int whole = (n1 - n0) % VL == 0;
    const int far_b = !p->b_transposed && whole && rows >= FEW_ROWS && n1 - n0 > NR && p->k * p->n >= B_LARGE;
    const int direct_b = !p->b_transposed && whole && rows < PACK_ROWS && !far_b;
    const int along_rows = p->a_row == 1 && p->a_k != 1;
    const int direct_a = n1 - n0 <= NR || (n1 - n0 <= 4 * NR && (!along_rows || p->k <= KC));
    const int copying = !p->b_transposed && whole && !direct_b && !direct_a && !far_b; /* B is packed by its first tiles */
    const int relu = p->activation == ACT_relu;
    float *tile_a = scratch, *panels = scratch + MR * KC + VL;

    const int64_t parts = p->k ? (p->k + KC - 1) / KC : 1, wide = (n1 - n0 + NR - 1) / NR * NR;
    const int by_rows = !along_rows && parts > 1 && wide * p->k <= B_SMALL; /* tile row by tile row, else part by part */
    const int large = p->m * p->k >= FAR;
    struct ahead ahead = {.next = 2};
    for (int64_t step = 0; step < parts * tall; step++) {
        const int64_t part = by_rows ? step % parts : step / tall, number = by_rows ? step / parts : step % tall;
        const int64_t k0 = part * p->k / parts, k = (part + 1) * p->k / parts - k0;
        const int64_t high = rows / tall + (number < rows % tall);
        const int64_t i = m0 + number * (rows / tall) + (number < rows % tall ? number : rows % tall);
        const int end = part + 1 == parts;
        float *all = panels + (by_rows ? k0 * wide : 0);
        if (far_b && number == 0) pack_far(all, p->b + k0 * p->ldb + n0, p->ldb, k, n1 - n0);
        for (int64_t column = n0; column < n1 && number == 0 && !direct_b && !copying && !far_b; column += NR) {
            const int64_t columns = n1 - column < NR ? n1 - column : NR;
            float *panel = all + (column - n0) * k;
            if (p->b_transposed) pack_transposed(panel, NR, p->b + column * p->ldb + k0, p->ldb, k, columns);
            else pack(panel, p->b + k0 * p->ldb + column, p->ldb, k, columns);
        }
        const float *a = p->a + i * p->a_row + k0 * p->a_k;
        if (!direct_a && !along_rows) pack_transposed(tile_a, high, a, p->a_row, k, high);
        else if (!direct_a) pack_rows(tile_a, high, a, p->a_k, k);
        if (large && !along_rows && part == 0 && (by_rows || parts == 1)) { /* the next tile row */
            const int64_t next = m1 - i - high < MR ? m1 - i - high : MR;
            ahead = (struct ahead){.part = {{a + high * p->a_row, next * p->k / CACHE_LINE}}};
        } else if (large && along_rows && number == 0) { /* the next part */
            const int64_t next = p->k - k0 - k < k ? p->k - k0 - k : k;
            ahead = (struct ahead){.part = {{p->a + (k0 + k) * p->a_k, rows == p->m ? next * p->m / CACHE_LINE : 0},
                                            {p->b + (k0 + k) * p->ldb, n1 - n0 == p->n ? next * p->n / CACHE_LINE : 0}}};
        }
        const int fresh = direct_b || (copying && number == 0); /* B is read where it lies */
        const int kind = copying && number == 0 ? COPYING : !direct_a || along_rows ? ALONG_ROWS : ALONG_K;
        for (int64_t column = n0; column < n1; column += NR) {
            const int64_t columns = n1 - column < NR ? n1 - column : NR, vectors = (columns + VL - 1) / VL;
            float *panel = all + (column - n0) * k;
            const struct tile t = {
                .k = k,
                .a = direct_a ? a : tile_a,
                .stride = !direct_a ? high : along_rows ? p->a_k : p->a_row,
                .b = fresh ? p->b + k0 * p->ldb + column : panel,
                .ldb = fresh ? p->ldb : NR,
                .panel = panel,
                .c = p->c + i * p->ldc + column,
                .ldc = p->ldc,
                .last = columns - (vectors - 1) * VL,
                .first = k0 == 0,
                .far = p->m * p->n >= FAR,
                .relu = end && !p->dx_of && relu,
                .bias = end && p->bias ? p->bias + column : NULL,
                .gate = end && p->dx_of && relu ? p->dx_of + i * p->ldc + column : NULL,
                .fetch = kind == COPYING ? NULL : take_lines(&ahead, k),
            };
            tiles[kind][vectors - 1][high - 1](&t);
            if (relu) continue;
            if (end && p->dx_of) {
                for (int64_t r = 0; r < high; r++)
                    activate_dx_rows(p->activation, t.c + r * p->ldc, p->dx_of + (i + r) * p->ldc + column, columns);
            } else if (end && p->activation) {
                for (int64_t r = 0; r < high; r++) activate_rows(p->activation, t.c + r * p->ldc, columns);
            }
        }
    }
}

/* A has one row: columns n0 .. n1 of a B that comes from memory, which is read as it lies there: the sums are in the
 * first-level cache, and take ROWS_AT_ONCE rows of B at a time. */
static void multiply_row(const struct product *p, int64_t n0, int64_t n1, float *sums)
{
    const int64_t parts = (p->k + KC - 1) / KC, columns = n1 - n0;
    float *c = p->c + n0;
    for (int64_t part = 0; part < parts; part++) {
        const int64_t end = (part + 1) * p->k / parts;
        for (int64_t j = 0; j < columns; j += VL) v_store(sums + j, v_zero());
        for (int64_t k = part * p->k / parts; k < end;) {
            const float *a = p->a + k * p->a_k, *b = p->b + k * p->ldb + n0;
            if (k + ROWS_AT_ONCE <= end) {
                vf left[ROWS_AT_ONCE];
                UNROLL for (int i = 0; i < ROWS_AT_ONCE; i++) left[i] = v_set(a[i * p->a_k]);
                for (int64_t j = 0; j < columns; j += VL) {
                    vf sum = v_load(sums + j);
                    UNROLL for (int i = 0; i < ROWS_AT_ONCE; i++) {
                        prefetch(b + (i + ROWS_AT_ONCE) * p->ldb + j);
                        sum = v_fma(left[i], v_load(b + i * p->ldb + j), sum);
                    }
                    v_store(sums + j, sum);
                }
                k += ROWS_AT_ONCE;
            } else {
                const vf left = v_set(a[0]);
                for (int64_t j = 0; j < columns; j += VL) v_store(sums + j, v_fma(left, v_load(b + j), v_load(sums + j)));
                k++;
            }
        }
        for (int64_t j = 0; j < columns; j += VL) {
            const vf sum = v_load(sums + j);
            if (part) v_store(c + j, v_load(c + j) + sum);
            else v_store(c + j, sum);
        }
    }
    if (p->bias) for (int64_t j = 0; j < columns; j += VL) v_store(c + j, v_load(c + j) + v_load(p->bias + n0 + j));
    if (p->dx_of) activate_dx_rows(p->activation, c, p->dx_of + n0, columns);
    else if (p->activation) activate_rows(p->activation, c, columns);
}

/* The sum of the lanes in a fixed order. */
INLINE float lanes_sum(vf v)
{
    float lane[VL];
    v_store(lane, v);
    for (int half = VL / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

/* B is one column, contiguous, and so are the rows of A: VL partial sums for each row. */
static void multiply_column(const struct product *p, int64_t m0, int64_t m1)
{
    for (int64_t i = m0; i < m1; i++) {
        const float *a = p->a + i * p->a_row;
        vf sum = v_zero();
        for (int64_t k = 0; k < p->k; k += VL) sum = v_fma(v_load_n(a + k, p->k - k), v_load_n(p->b + k, p->k - k), sum);
        p->c[i * p->ldc] = lanes_sum(sum) + (p->bias ? p->bias[0] : 0.0f);
    }
    const int64_t together = p->ldc == 1 ? m1 - m0 : 1;
    for (int64_t i = m0 * p->ldc; p->activation && i < m1 * p->ldc; i += together * p->ldc) {
        if (p->dx_of) activate_dx_rows(p->activation, p->c + i, p->dx_of + i, together);
        else activate_rows(p->activation, p->c + i, together);
    }
}

/* Shared out in blocks of rows and columns, one a lane if the product is large enough. How they are cut is of no
 * consequence for the result. */
static void multiply(const struct product *p, const struct lane *lane)
{
    const int column = p->n == 1 && p->a_k == 1;
    const int row = p->m == 1 && !p->b_transposed && p->n % VL == 0 && p->k * p->n >= B_LARGE;
    int64_t blocks = 1, groups = column ? 1 : (p->n + NC - 1) / NC;
    while (blocks * groups < lane->count) {
        if (p->m >= blocks * 2 * p->block_rows) blocks *= 2;
        else if (!column && p->n >= groups * 2 * BLOCK_COLUMNS) groups *= 2;
        else break;
    }
    const int64_t width = column ? 1 : ((p->n + groups - 1) / groups + NR - 1) / NR * NR;
    for (int64_t task = lane->id; task < blocks * groups; task += lane->count) {
        const int64_t m0 = task % blocks * p->m / blocks, m1 = (task % blocks + 1) * p->m / blocks;
        const int64_t n0 = task / blocks * width, n1 = n0 + width < p->n ? n0 + width : p->n;
        if (column) multiply_column(p, m0, m1);
        else if (row && n0 < n1) multiply_row(p, n0, n1, lane->scratch);
        else if (n0 < n1) multiply_block(p, m0, m1, n0, n1, lane->scratch);
    }
}

/* ---- the ops ---- */

/* y (N, F) = x (N, K) w (K, F) */
static struct product forward(const struct step *s)
{
    const struct tensor *x = &s->in[0], *w = &s->in[1];
    const int64_t k = w->size[0], f = w->size[1];
    return (struct product){.m = rows_of(x), .n = f, .k = k, .a = x->data, .a_row = k, .a_k = 1,
                            .b = w->data, .ldb = f, .b_transposed = 0, .c = s->out[0].data, .ldc = pitch_of(&s->out[0]),
                            .block_rows = w->changing ? BLOCK_ROWS : BLOCK_ROWS / 4};
}

/* dx (N, K) = g (N, F) w (K, F)'; a single output F needs no transposing */
static struct product backward_input(const struct step *s)
{
    const struct tensor *g = &s->in[0], *w = &s->in[1];
    const int64_t k = w->size[0], f = w->size[1];
    return (struct product){.m = rows_of(g), .n = k, .k = f, .a = g->data, .a_row = f, .a_k = 1,
                            .b = w->data, .ldb = f == 1 ? k : f, .b_transposed = f != 1, .c = s->out[0].data, .ldc = k,
                            .block_rows = BLOCK_ROWS};
}

static void kernel_matmul(const struct step *s, const struct lane *lane)
{
    const struct product p = forward(s);
    multiply(&p, lane);
}

static void kernel_dense(const struct step *s, const struct lane *lane)
{
    struct product p = forward(s);
    p.bias = s->inputs > 2 ? s->in[2].data : NULL;
    p.activation = s->attr.activation;
    multiply(&p, lane);
}

static void kernel_matmul_nt(const struct step *s, const struct lane *lane)
{
    const struct product p = backward_input(s);
    multiply(&p, lane);
}

static void kernel_dense_dx(const struct step *s, const struct lane *lane)
{
    struct product p = backward_input(s);
    p.activation = s->attr.activation;
    p.dx_of = s->in[2].data;
    multiply(&p, lane);
}

/* dw (K, F) = x (N, K)' g (N, F) for few outputs, F < VL: vectors lie along K instead, and the result is turned round. */
static void multiply_narrow(const struct tensor *dw, const struct tensor *x, const struct tensor *g,
                            const struct lane *lane)
{
    const int64_t n = rows_of(x), k = columns_of(x), f = columns_of(g);
    float *turned = (float *)lane->scratch + (MR * KC + VL) + NC * KC; /* (f, width), behind the panels */
    int64_t block = NC;
    while (n >= MANY_ROWS && block > NR && k < block * lane->count) block /= 2;
    for (int64_t k0 = lane->id * block; k0 < k; k0 += lane->count * block) {
        const int64_t width = k - k0 < block ? k - k0 : block, tail = width < VL ? width : VL;
        float *to = (float *)dw->data + k0 * f;
        const struct product p = {.m = f, .n = width, .k = n, .a = g->data, .a_row = 1, .a_k = f,
                                  .b = (const float *)x->data + k0, .ldb = k, .c = turned, .ldc = width};
        multiply_block(&p, 0, f, 0, width, lane->scratch);
        if (width > tail) pack_transposed(to, f, turned, width, width - tail, f);
        for (int64_t row = width - tail; row < width; row++) /* what was written too much before is put right */
            for (int64_t i = 0; i < f; i++) to[row * f + i] = turned[i * width + row];
    }
}

/* dw (K, F) = x (N, K)' g (N, F); with one output, the transposed product has contiguous rows to work on */
static void kernel_matmul_tn(const struct step *s, const struct lane *lane)
{
    const struct tensor *x = &s->in[0], *g = &s->in[1];
    const int64_t n = rows_of(x), k = columns_of(x), f = columns_of(g);
    struct product p = {.m = k, .n = f, .k = n, .a = x->data, .a_row = 1, .a_k = k,
                        .b = g->data, .ldb = f, .c = s->out[0].data, .ldc = f, .block_rows = n < MANY_ROWS ? BLOCK_ROWS : MR};
    if (f == 1) {
        p = (struct product){.m = 1, .n = k, .k = n, .a = g->data, .a_row = n, .a_k = 1,
                             .b = x->data, .ldb = k, .c = s->out[0].data, .ldc = k, .block_rows = BLOCK_ROWS};
    } else if (f < VL && k >= 2 * NR) {
        multiply_narrow(&s->out[0], x, g, lane);
        return;
    }
    multiply(&p, lane);
}

/* y (N, I, J) = a (N, I, K) b (N, J, K)', product by product, each in parts if they are large and few */
static void kernel_batch_dot(const struct step *s, const struct lane *lane)
{
    const struct tensor *a = &s->in[0], *b = &s->in[1];
    const int64_t n = a->size[0], k = a->size[2], rows = a->size[1], columns = b->size[1];
    struct product p = {.m = rows, .n = columns, .k = k, .ldc = columns, .a_row = k, .a_k = 1, .ldb = k == 1 ? columns : k, .b_transposed = k != 1};
    int64_t parts = 1;
    while (n * parts < lane->count && rows >= parts * 2 * BLOCK_ROWS) parts *= 2;
    for (int64_t t = lane->id; t < n * parts; t += lane->count) {
        const int64_t row = t / parts, m0 = t % parts * rows / parts, m1 = (t % parts + 1) * rows / parts;
        p.a = (const float *)a->data + row * rows * k;
        p.b = (const float *)b->data + row * columns * k;
        p.c = (float *)s->out[0].data + row * rows * columns;
        if (columns == 1) {
            multiply_column(&p, m0, m1);
            continue;
        }
        for (int64_t n0 = 0; n0 < columns; n0 += NC)
            multiply_block(&p, m0, m1, n0, columns - n0 < NC ? columns : n0 + NC, lane->scratch);
    }
}

/* out (N, F) = x (N, F) + b (F) */
static void kernel_add_bias(const struct step *s, const struct lane *lane)
{
    const int64_t n = rows_of(&s->in[0]), f = columns_of(&s->in[0]), block = COPY_FLOATS / (f + 1) + 1;
    const float *x = s->in[0].data, *b = s->in[1].data;
    const int64_t pitch = pitch_of(&s->out[0]);
    float *out = s->out[0].data;
    for (int64_t first = lane->id * block; first < n; first += lane->count * block)
        for (int64_t i = first; i < n && i < first + block; i++)
            for (int64_t j = 0; j < f; j += VL)
                v_store_n(out + i * pitch + j, v_load_n(x + i * f + j, f - j) + v_load_n(b + j, f - j), f - j);
}

/* ---- sums of rows: SUM_ROWS rows are added up, then their sum to that of the rows before ---- */

enum { SUM_ROWS = 256, SUM_CHAINS = 4 };

/* to (nv vectors, the last one of `last` columns) = [to +] sum of g (rows, ld) there. A row goes to one of several chains of
 * additions, so that they need not wait for each other; nv and chains are constants. */
INLINE void sum_columns(const int nv, const int chains, float *to, const float *g, int64_t rows, int64_t ld, int64_t last,
                        int add)
{
    vf sum[SUM_CHAINS][SUM_CHAINS];
    int64_t i = 0;
    UNROLL for (int c = 0; c < chains; c++)
        UNROLL for (int v = 0; v < nv; v++) sum[c][v] = v_zero();
    for (; i + chains <= rows; i += chains)
        UNROLL for (int c = 0; c < chains; c++)
            UNROLL for (int v = 0; v < nv; v++)
                sum[c][v] = sum[c][v] + v_load_n(g + (i + c) * ld + v * VL, v + 1 < nv ? VL : last);
    for (; i < rows; i++)
        UNROLL for (int v = 0; v < nv; v++) sum[0][v] = sum[0][v] + v_load_n(g + i * ld + v * VL, v + 1 < nv ? VL : last);
    UNROLL for (int v = 0; v < nv; v++) {
        const int64_t n = v + 1 < nv ? VL : last;
        UNROLL for (int c = 1; c < chains; c++) sum[0][v] = sum[0][v] + sum[c][v];
        if (add) sum[0][v] = v_load_n(to + v * VL, n) + sum[0][v];
        v_store_n(to + v * VL, sum[0][v], n);
    }
}

/* The same for all columns of g (rows, f), f < VL: VL rows are f whole vectors. */
INLINE void sum_narrow(const int f, float *to, const float *g, int64_t rows, int add)
{
    float lanes[VL * VL];
    vf sum[2][VL];
    int64_t i = 0;
    UNROLL for (int v = 0; v < f; v++) sum[0][v] = sum[1][v] = v_zero();
    for (; i + 2 * VL <= rows; i += 2 * VL)
        UNROLL for (int v = 0; v < 2 * f; v++) sum[v / f][v % f] = sum[v / f][v % f] + v_load(g + i * f + v * VL);
    UNROLL for (int v = 0; v < f; v++) v_store(lanes + v * VL, sum[0][v] + sum[1][v]);
    for (int64_t at = 0; i * f + at < rows * f; at += VL) {
        const int64_t part = at % (f * VL), left = rows * f - i * f - at;
        v_store(lanes + part, v_load(lanes + part) + v_load_n(g + i * f + at, left));
    }
    for (int j = 0; j < f; j++) {
        float total = lanes[j];
        for (int row = 1; row < VL; row++) total += lanes[row * f + j];
        to[j] = add ? to[j] + total : total;
    }
}

/* to (f) = [to +] the sum of g (rows, ld), rows <= SUM_ROWS */
static void sum_part(float *to, const float *g, int64_t rows, int64_t ld, int64_t f, int add)
{
    if (ld < VL) {
        switch (ld) {
#define CASE(f) case f: sum_narrow(f < VL ? f : 1, to, g, rows, add); return;
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
        CASE(15)
#undef CASE
        }
    }
    for (int64_t j = 0; j < f; j += 4 * VL) {
        const int64_t left = f - j < 4 * VL ? f - j : 4 * VL, nv = (left + VL - 1) / VL, last = left - (nv - 1) * VL;
        if (nv == 4) sum_columns(4, 1, to + j, g + j, rows, ld, last, add);
        else if (nv == 3) sum_columns(3, 1, to + j, g + j, rows, ld, last, add);
        else if (nv == 2) sum_columns(2, 2, to + j, g + j, rows, ld, last, add);
        else sum_columns(1, 4, to + j, g + j, rows, ld, last, add);
    }
}

/* out (F) = sum over N of g (N, F). Many rows are shared out part by part, their sums kept in the workspace until all are
 * there; few rows by columns. */
static void kernel_sum_rows(const struct step *s, const struct lane *lane)
{
    const int64_t n = rows_of(&s->in[0]), f = columns_of(&s->in[0]), parts = (n + SUM_ROWS - 1) / SUM_ROWS;
    const float *g = s->in[0].data;
    float *out = s->out[0].data, *sums = s->workspace;
    const int apart = lane->count > 1 && parts >= 4;
    for (int64_t t = apart ? lane->id : 0; apart && t < parts; t += lane->count) {
        const int64_t first = t * SUM_ROWS, rows = n - first < SUM_ROWS ? n - first : SUM_ROWS;
        sum_part(sums + t * f, g + first * f, rows, f, f, 0);
    }
    if (apart) team_barrier(lane);
    const int64_t groups = (f + 4 * VL - 1) / (4 * VL);
    const int64_t j = lane->id * groups / lane->count * 4 * VL, end = (lane->id + 1) * groups / lane->count * 4 * VL;
    const int64_t width = (end < f ? end : f) - j;
    if (width <= 0) return;
    for (int64_t t = 0; t < parts; t++) {
        const int64_t first = t * SUM_ROWS, rows = n - first < SUM_ROWS ? n - first : SUM_ROWS;
        if (!apart) sum_part(out + j, g + first * f + j, rows, f, width, t > 0);
        else if (t == 0) copy_row(out + j, sums + j, width);
        else for (int64_t i = j; i < j + width; i++) out[i] += sums[t * f + i];
    }
    if (!parts) memset(out + j, 0, (size_t)width * sizeof *out);
}

/* As many multiply-adds as the registers take, nothing else: the peak to measure against. Returns the operations. */
static double peak(void)
{
    enum { ROUNDS = 1 << 14 };
    vf sum[MR][NV];
    UNROLL for (int i = 0; i < MR; i++)
        UNROLL for (int j = 0; j < NV; j++) sum[i][j] = v_set((float)(i * NV + j));
    const vf factor = v_set(0.5f);
    for (int round = 0; round < ROUNDS; round++)
        UNROLL for (int i = 0; i < MR; i++)
            UNROLL for (int j = 0; j < NV; j++) sum[i][j] = v_fma(sum[i][j], factor, factor);
    vf total = v_zero();
    UNROLL for (int i = 0; i < MR; i++)
        UNROLL for (int j = 0; j < NV; j++) total = total + sum[i][j];
    return 2.0 * ROUNDS * MR * NV * VL + (lanes_sum(total) > 0 ? 0.0 : 1.0);
}
