/* Dropout. Random words come from Philox4x32-10 (Salmon et al. 2011), laid out as fastnn/ops/random.py says: a block of
 * 64 elements has sixteen counters, whose four words stand sixteen apart. */

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
