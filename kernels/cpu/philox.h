/* Philox 4x32-10 and unit normals, bit for bit as kernels/philox.py and kernels/_elementary.py say.
 *
 * Everything is a sequence of single IEEE operations on independent elements, so vectorising changes no bit;
 * it must be compiled with -ffp-contract=off and without -ffast-math.
 */
#ifndef PXSERVE_PHILOX_H
#define PXSERVE_PHILOX_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* One version of the outer loops for each vector width; the loader picks the machine's. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define VECTORISED __attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3")))
#else
#define VECTORISED
#endif
#define INLINE static inline __attribute__((always_inline))

enum { BLOCK = 256 }; /* counters drawn together: their four lanes stay in the first-level cache */

typedef struct {
    uint64_t seed;
    uint32_t line, stream, row;
} Draw;

/* Counters that a row of n elements uses: ceil(n / 4) rounded up to a multiple of 8. */
INLINE int64_t counters_per_row(int64_t n) { return (n + 31) / 32 * 8; }

/* The words of counters first .. first + count (<= BLOCK). */
INLINE void words_of(Draw draw, int64_t first, int64_t count, uint32_t words[4][BLOCK]) {
    uint32_t k0 = (uint32_t)draw.seed, k1 = (uint32_t)(draw.seed >> 32);
    for (int64_t i = 0; i < count; i++) {
        words[0][i] = (uint32_t)(first + i);
        words[1][i] = draw.line;
        words[2][i] = draw.stream;
        words[3][i] = draw.row;
    }
    for (int round = 0; round < 10; round++) {
        for (int64_t i = 0; i < count; i++) {
            uint64_t p0 = (uint64_t)words[0][i] * 0xD2511F53u, p2 = (uint64_t)words[2][i] * 0xCD9E8D57u;
            words[0][i] = (uint32_t)(p2 >> 32) ^ words[1][i] ^ k0;
            words[2][i] = (uint32_t)(p0 >> 32) ^ words[3][i] ^ k1;
            words[1][i] = (uint32_t)p2;
            words[3][i] = (uint32_t)p0;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

/* Triton's uint_to_uniform_float: 31 bits, [0, 1). */
INLINE float uniform_of(uint32_t word) {
    int32_t x = (int32_t)word;
    return (float)(x ^ (x >> 31)) * 4.6566127342e-10f;
}

/* Natural logarithm of normal positive x. */
INLINE float log_of(float x) {
    int32_t bits;
    float f;
    memcpy(&bits, &x, 4);
    bits -= 0x3F3504F3;
    float exponent = (float)(bits >> 23);
    bits = (bits & 0x7FFFFF) + 0x3F3504F3;
    memcpy(&f, &bits, 4);
    f -= 1.0f;
    float square = f * f;
    float series = f * 0.08700359612703323f;
    series = (series + -0.1426747590303421f) * f;
    series = (series + 0.1491478681564331f) * f;
    series = (series + -0.165775865316391f) * f;
    series = (series + 0.19963061809539795f) * f;
    series = (series + -0.2500133812427521f) * f;
    series = series + 0.3333390951156616f;
    series = series * (square * f) - square * 0.5f;
    return series + exponent * -2.12194440e-4f + f + exponent * 0.693359375f;
}

/* radius * cos(2 pi turns) and radius * sin(2 pi turns): Box and Muller. */
INLINE void normals_of(uint32_t radius_word, uint32_t angle_word, float *first, float *second) {
    float u = uniform_of(radius_word);
    u = u > 1e-7f ? u : 1e-7f;
    float radius = sqrtf(log_of(u) * -2.0f);
    float f = uniform_of(angle_word) - 0.5f;
    float square = f * f;
    float sine = square * 0.07756038755178452f;
    sine = (sine + -0.5982421040534973f) * square;
    sine = (sine + 2.550069808959961f) * square;
    sine = (sine + -5.167709827423096f) * square;
    sine = (sine + 3.1415927410125732f) * f;
    float cosine = square * -0.02442069724202156f;
    cosine = (cosine + 0.23495392501354218f) * square;
    cosine = (cosine + -1.3352160453796387f) * square;
    cosine = (cosine + 4.058709621429443f) * square;
    cosine = (cosine + -4.934802055358887f) * square;
    cosine = cosine + 1.0f;
    *first = radius * ((sine - cosine) * (sine + cosine));
    *second = radius * (cosine * sine * -2.0f);
}

/* Unit normals of counters first .. first + count, a lane every ``stride``: element l * Q + first + i of the row
 * is out[l * stride + i]. */
INLINE void normal_block(Draw draw, int64_t first, int64_t count, int64_t stride, float *restrict out) {
    uint32_t words[4][BLOCK];
    float lanes[4][BLOCK];
    words_of(draw, first, count, words);
    for (int64_t i = 0; i < count; i++) {
        normals_of(words[0][i], words[1][i], &lanes[0][i], &lanes[1][i]);
        normals_of(words[2][i], words[3][i], &lanes[2][i], &lanes[3][i]);
    }
    for (int lane = 0; lane < 4; lane++) memcpy(out + lane * stride, lanes[lane], 4 * count);
}

#endif
