/* Dropout and noise. Random words come from Philox4x32-10 (Salmon et al. 2011), laid out as fastnn/ops/random.py says: a
 * block of 64 elements has sixteen counters, whose four words stand sixteen apart. */

enum { BLOCK = 64, DROPOUT_TASK = 64 * BLOCK };

/* Vectors of WL 64-bit lanes, of which only the low halves count; w_multiply makes whole products of them. Two vectors hold
 * the even and the odd ones of 2 WL words; w_store puts them in order. */
#if defined(ISA_AVX512)
#define WL 8
typedef __m512i vw;
INLINE vw w_set(uint64_t x) { return _mm512_set1_epi64((int64_t)x); }
INLINE vw w_load(const uint64_t *p) { return _mm512_loadu_si512(p); }
INLINE vw w_add(vw a, vw b) { return _mm512_add_epi64(a, b); }
INLINE vw w_multiply(vw a, vw b) { return _mm512_mul_epu32(a, b); }
INLINE vw w_high(vw a) { return _mm512_srli_epi64(a, 32); }
INLINE vw w_xor(vw a, vw b, vw c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
INLINE void w_store(uint32_t *p, vw even, vw odd)
{
    _mm512_storeu_si512(p, _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32)));
}
#elif defined(ISA_AVX2)
#define WL 4
typedef __m256i vw;
INLINE vw w_set(uint64_t x) { return _mm256_set1_epi64x((int64_t)x); }
INLINE vw w_load(const uint64_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE vw w_add(vw a, vw b) { return _mm256_add_epi64(a, b); }
INLINE vw w_multiply(vw a, vw b) { return _mm256_mul_epu32(a, b); }
INLINE vw w_high(vw a) { return _mm256_srli_epi64(a, 32); }
INLINE vw w_xor(vw a, vw b, vw c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
INLINE void w_store(uint32_t *p, vw even, vw odd)
{
    _mm256_storeu_si256((__m256i *)p, _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA));
}
#elif defined(ISA_NEON)
#define WL 2
typedef uint64x2_t vw;
INLINE vw w_set(uint64_t x) { return vdupq_n_u64(x); }
INLINE vw w_load(const uint64_t *p) { return vld1q_u64(p); }
INLINE vw w_add(vw a, vw b) { return vaddq_u64(a, b); }
INLINE vw w_multiply(vw a, vw b) { return vmull_u32(vmovn_u64(a), vmovn_u64(b)); }
INLINE vw w_high(vw a) { return vshrq_n_u64(a, 32); }
INLINE vw w_xor(vw a, vw b, vw c) { return veorq_u64(veorq_u64(a, b), c); }
INLINE void w_store(uint32_t *p, vw even, vw odd)
{
    vst1q_u32(p, vtrn1q_u32(vreinterpretq_u32_u64(even), vreinterpretq_u32_u64(odd)));
}
#else
#define WL 1
typedef uint64_t vw;
INLINE vw w_set(uint64_t x) { return x; }
INLINE vw w_load(const uint64_t *p) { return *p; }
INLINE vw w_add(vw a, vw b) { return a + b; }
INLINE vw w_multiply(vw a, vw b) { return (uint64_t)(uint32_t)a * (uint32_t)b; }
INLINE vw w_high(vw a) { return a >> 32; }
INLINE vw w_xor(vw a, vw b, vw c) { return a ^ b ^ c; }
INLINE void w_store(uint32_t *p, vw even, vw odd)
{
    p[0] = (uint32_t)even;
    p[1] = (uint32_t)odd;
}
#endif

/* One round on the counters c (4). */
INLINE void philox_round(vw *c, vw key_0, vw key_1)
{
    vw a = w_multiply(c[0], w_set(0xD2511F53u)), b = w_multiply(c[2], w_set(0xCD9E8D57u));
    c[0] = w_xor(w_high(b), c[1], key_0);
    c[1] = b;
    c[2] = w_xor(w_high(a), c[3], key_1);
    c[3] = a;
}

/* words (4,16) of the counters (16 block + 0..15, rest[0], rest[1], rest[2]) */
INLINE void philox(uint32_t *words, uint64_t block, const uint32_t *rest, uint64_t seed)
{
    static const uint64_t evens[8] = {0, 2, 4, 6, 8, 10, 12, 14};
    for (int at = 0; at < 8; at += WL) {
        vw first = w_add(w_set(16 * block), w_load(evens + at));
        vw even[4] = {first, w_set(rest[0]), w_set(rest[1]), w_set(rest[2])};
        vw odd[4] = {w_add(first, w_set(1)), even[1], even[2], even[3]};
        uint32_t key_0 = (uint32_t)seed, key_1 = (uint32_t)(seed >> 32);
        for (int round = 0; round < 10; round++, key_0 += 0x9E3779B9u, key_1 += 0xBB67AE85u) {
            philox_round(even, w_set(key_0), w_set(key_1));
            philox_round(odd, w_set(key_0), w_set(key_1));
        }
        for (int i = 0; i < 4; i++) w_store(words + 16 * i + 2 * at, even[i], odd[i]);
    }
}

/* y (any) = x / (1 - rate), 0 where the element's number in [0, 1) is below the rate */
static void kernel_dropout(const struct step *step, const struct lane *lane)
{
    const float *x = step->in[0].data;
    float *y = step->out[0].data;
    uint64_t now = (uint64_t)*(const int64_t *)step->in[1].data;
    const uint32_t rest[3] = {(uint32_t)now, (uint32_t)(now >> 32), step->attr.stream};
    int64_t total = elements(&step->out[0]);
    vf rate = v_set((float)step->attr.rate), scale = v_set((float)(1.0 / (1.0 - step->attr.rate)));
    for (int64_t t = lane->id; t * DROPOUT_TASK < total; t += lane->count)
        for (int64_t at = t * DROPOUT_TASK; at < total && at < (t + 1) * DROPOUT_TASK; at += BLOCK) {
            uint32_t words[BLOCK];
            philox(words, (uint64_t)(at / BLOCK), rest, step->attr.seed);
            for (int64_t i = 0; i < BLOCK && at + i < total; i += VL) {
                int64_t n = total - at - i;
                vi word;
                memcpy(&word, words + i, sizeof word);
                vf number = v_from_int(v_ishr(word, 8)) * v_set(5.96046448e-8f); /* 2^-24 */
                vf kept = v_load_n(x + at + i, n) * scale;
                v_store_n(y + at + i, v_select(v_less(number, rate), v_zero(), kept), n);
            }
        }
}

/* y (N, ..., C) = x / (1 - rate), 0 in the channels c of row n where the number of element n * C + c is below the rate */
static void kernel_spatial_dropout(const struct step *step, const struct lane *lane)
{
    enum { CHANNELS = 4096 }; /* worked on at a time: a multiple of BLOCK, and of VL * VL */
    const struct tensor *x = &step->in[0];
    const uint64_t now = (uint64_t)*(const int64_t *)step->in[1].data;
    const uint32_t rest[3] = {(uint32_t)now, (uint32_t)(now >> 32), step->attr.stream};
    const float rate = (float)step->attr.rate, scale = (float)(1.0 / (1.0 - step->attr.rate));
    const int64_t n = x->size[0], c = columns_of(x), places = n ? rows_of(x) / n : 0;
    const int64_t block = COPY_FLOATS / (c + 1) + 1, blocks = (places + block - 1) / block; /* of places */
    for (int64_t t = lane->id; t < n * blocks; t += lane->count) {
        const int64_t row = t / blocks, first = t % blocks * block;
        const int64_t count = places - first < block ? places - first : block;
        for (int64_t c0 = 0; c0 < c; c0 += CHANNELS) {
            const int64_t width = c - c0 < CHANNELS ? c - c0 : CHANNELS;
            const float *from = (const float *)x->data + (row * places + first) * c + c0;
            float *to = (float *)step->out[0].data + (row * places + first) * c + c0;
            float factor[CHANNELS];
            uint32_t words[BLOCK];
            for (int64_t j = 0; j < width; j++) {
                const uint64_t element = (uint64_t)(row * c + c0 + j);
                if (j == 0 || element % BLOCK == 0) philox(words, element / BLOCK, rest, step->attr.seed);
                factor[j] = (float)(words[element % BLOCK] >> 8) * 5.96046448e-8f < rate ? 0.0f : scale; /* 2^-24 */
            }
            int64_t period = width, length = width, rows = count;
            if (c < VL) { /* VL places are c whole vectors */
                for (; period < c * VL; period++) factor[period] = factor[period - c];
                length = count * c;
                rows = 1;
            }
            for (int64_t i = 0; i < rows; i++)
                for (int64_t j = 0, k = 0; j < length; j += VL, k = k + VL < period ? k + VL : 0) {
                    const vf keep = v_load_n(factor + k, width - k < VL && c >= VL ? width - k : VL);
                    const vf v = v_load_n(from + i * c + j, length - j) * keep;
                    v_store_n(to + i * c + j, v_select(v_equal(keep, v_zero()), v_zero(), v), length - j);
                }
        }
    }
}

/* The standard normal number of each word (see fastnn/ops/random.py). No operation may be fused with another. */
INLINE vf normal_of(vi word)
{
    static const float log_2[] = {1.4426947724f, -0.721357149f, 0.4809394442f, -0.3600872132f,
                                  0.2867074705f, -0.2500690858f, 0.2368902793f, -0.1457442187f};
    static const float p[] = {1.7374605488f, 2.2034123289f, 0.7633554883f, 0.0695518118f};
    static const float q[] = {1.0f, 1.4613107338f, 0.5913914313f, 0.0590351455f};
    const vi bits = v_as_int(v_from_int(v_ior(v_ishr(word, 1), v_iset(1))));
    const vi exponent = v_isar(v_isub(bits, v_iset(0x3F3504F3)), 23);
    const vf f = v_as_float(v_isub(bits, v_ishl(exponent, 23))) - v_set(1.0f);
    vf l = v_set(log_2[7]), above = v_set(p[3]), below = v_set(q[3]);
    UNROLL for (int i = 6; i >= 0; i--) l = l * f + v_set(log_2[i]);
    const vf t = v_sqrt((v_set(32.0f) - v_from_int(exponent)) - f * l) - v_set(1.0f);
    UNROLL for (int i = 2; i >= 0; i--) {
        above = above * t + v_set(p[i]);
        below = below * t + v_set(q[i]);
    }
    return v_as_float(v_ixor(v_as_int(t * above / below), v_ishl(word, 31)));
}

/* y (any) = x + stddev * the element's normal number */
static void kernel_gaussian_noise(const struct step *step, const struct lane *lane)
{
    const float *x = step->in[0].data;
    float *y = step->out[0].data;
    const uint64_t now = (uint64_t)*(const int64_t *)step->in[1].data;
    const uint32_t rest[3] = {(uint32_t)now, (uint32_t)(now >> 32), step->attr.stream};
    const int64_t total = elements(&step->out[0]);
    const vf stddev = v_set((float)step->attr.stddev);
    for (int64_t t = lane->id; t * DROPOUT_TASK < total; t += lane->count)
        for (int64_t at = t * DROPOUT_TASK; at < total && at < (t + 1) * DROPOUT_TASK; at += BLOCK) {
            uint32_t words[BLOCK];
            philox(words, (uint64_t)(at / BLOCK), rest, step->attr.seed);
            for (int64_t i = 0; i < BLOCK && at + i < total; i += VL) {
                const int64_t n = total - at - i;
                vi word;
                memcpy(&word, words + i, sizeof word);
                v_store_n(y + at + i, v_load_n(x + at + i, n) + stddev * normal_of(word), n);
            }
        }
}
