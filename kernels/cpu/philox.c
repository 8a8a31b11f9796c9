/* Noise of many rows, for kernels/_philox_cpu.py. */
#include "philox.h"

enum { WORDS, UNIFORMS, NORMALS };

INLINE void write_block(int what, Draw draw, int64_t first, int64_t count, int64_t n, int64_t quarter, void *out) {
    uint32_t words[4][BLOCK];
    float values[4][BLOCK];
    if (what == NORMALS) {
        normal_block(draw, first, count, BLOCK, values[0]);
    } else {
        words_of(draw, first, count, words);
        for (int lane = 0; lane < 4; lane++)
            for (int64_t i = 0; i < count; i++) values[lane][i] = uniform_of(words[lane][i]);
    }
    for (int lane = 0; lane < 4; lane++) {
        int64_t begin = lane * quarter + first, some = n - begin < count ? n - begin : count;
        for (int64_t i = 0; i < some; i++) {
            if (what == WORDS) ((int64_t *)out)[begin + i] = words[lane][i];
            else ((float *)out)[begin + i] = values[lane][i];
        }
    }
}

INLINE void fill(int what, const int64_t *seed, const int64_t *row, const int64_t *line, const int64_t *stream,
                 int64_t rows, int64_t steps, int64_t n, void *out) {
    int64_t quarter = counters_per_row(n), size = what == WORDS ? 8 : 4;
    int64_t counters = quarter < n ? quarter : n;
    for (int64_t r = 0; r < rows * steps; r++) {
        int64_t owner = r / steps;
        Draw draw = {(uint64_t)seed[owner], (uint32_t)line[r], (uint32_t)stream[owner], (uint32_t)row[owner]};
        for (int64_t first = 0; first < counters; first += BLOCK) {
            int64_t count = counters - first < BLOCK ? counters - first : BLOCK;
            write_block(what, draw, first, count, n, quarter, (char *)out + r * n * size);
        }
    }
}

/* seed, row, stream [rows]; line [rows, steps]; out [rows, steps, n]: int64 words, float32 otherwise. */
VECTORISED void pxserve_words(const int64_t *seed, const int64_t *row, const int64_t *line, const int64_t *stream,
                              int64_t rows, int64_t steps, int64_t n, int64_t *out) {
    fill(WORDS, seed, row, line, stream, rows, steps, n, out);
}

VECTORISED void pxserve_uniforms(const int64_t *seed, const int64_t *row, const int64_t *line, const int64_t *stream,
                                 int64_t rows, int64_t steps, int64_t n, float *out) {
    fill(UNIFORMS, seed, row, line, stream, rows, steps, n, out);
}

VECTORISED void pxserve_normals(const int64_t *seed, const int64_t *row, const int64_t *line, const int64_t *stream,
                                int64_t rows, int64_t steps, int64_t n, float *out) {
    fill(NORMALS, seed, row, line, stream, rows, steps, n, out);
}
