/* The CPU form of kernels/denoise.py over the rows of a table: gather the network's inputs, advance the rows.
 *
 * One call for all rows of a tick. Operations and their order are those of the operator's reference, one IEEE
 * operation each, so the bits are the same. Slots in the tables are valid by contract; nothing is allocated.
 */
#include "philox.h"

/* Columns of a line, as serving/families/diffusion/plan.py has them. */
enum { G, P_X, Q_OUT, LOW, HIGH, A, B, C1, C2, C3, D, KNOWN, RENOISE, E, TIME, SCALE, SPREAD, COLUMNS };
enum { STREAM_INITIAL, STREAM_STEP, STREAM_RENOISE };
enum { HISTORY = 3, CONDITIONS = 8 };

typedef struct {
    int64_t row_bytes;
    const char *values; /* [capacity] rows */
    const char *null;   /* its value for guidance, a slot every null_bytes (0: the same for all); or 0 */
    int64_t null_bytes;
} Condition;

/* What a table knows of a row besides its state, as kernels/table.py has it; the rest is the host's. */
typedef struct {
    int64_t first, line, end; /* of the plan; the next one to do; where it ends */
    int64_t depth, width;     /* how much history the plan reads; network rows */
    int64_t seed, row, words; /* whose noise; words is the stream word before the stream itself */
    uint8_t guided, masked, learned, direct, special;
    float rescale, threshold;
} Entry;

typedef struct {
    int64_t elements, conditions, integer_time;
    float *x, *x0[HISTORY];        /* [capacity, elements]; x0 of 1, 2, 3 lines ago */
    const float *known;            /* [capacity, elements], or 0 with observed */
    const uint8_t *observed;
    const float *lines;            /* [lines, COLUMNS] */
    Entry *entries;                /* [capacity] */
    Condition condition[CONDITIONS];
} Table;

/* A few elements of one row. */
typedef struct {
    const float *c;
    const float *output, *unconditional;
    float *x, *x0[HISTORY];
    const float *known;
    const uint8_t *observed;
    const float *noise, *renoise;
    int64_t depth;
} Part;

/* The guided prediction m, and the bounded estimate of x0. */
INLINE void estimate(const Part *part, int64_t count, float *m, float *x0) {
    float g = part->c[G], p = part->c[P_X], q = part->c[Q_OUT], low = part->c[LOW], high = part->c[HIGH];
    for (int64_t i = 0; i < count; i++) m[i] = part->output[i];
    if (part->unconditional)
        for (int64_t i = 0; i < count; i++) m[i] = part->unconditional[i] + g * (m[i] - part->unconditional[i]);
    for (int64_t i = 0; i < count; i++) {
        float value = p * part->x[i] + q * m[i];
        value = value < low ? low : value;
        x0[i] = value > high ? high : value;
    }
}

INLINE void put_given(const Part *part, int64_t count, float *next) {
    float known = part->c[KNOWN], renoise = part->c[RENOISE];
    if (known == 0.0f && renoise == 0.0f) return;
    for (int64_t i = 0; i < count; i++) {
        float given = (known != 0.0f ? known * part->known[i] : 0.0f) + 0.0f;
        given = part->renoise ? given + renoise * part->renoise[i] : given;
        next[i] = part->observed[i] ? given : next[i];
    }
}

INLINE void advance_part(const Part *part, int64_t count) {
    float a = part->c[A], b = part->c[B], d = part->c[D], e = part->c[E];
    float m[BLOCK], x0[BLOCK], next[BLOCK];
    estimate(part, count, m, x0);
    for (int64_t i = 0; i < count; i++) next[i] = a * part->x[i];
    if (e != 0.0f)
        for (int64_t i = 0; i < count; i++) next[i] = e * m[i] + next[i];
    for (int64_t i = 0; i < count; i++) next[i] = next[i] + b * x0[i] + 0.0f;
    for (int64_t j = 0; j < part->depth; j++) {
        float c = part->c[C1 + j];
        if (c != 0.0f)
            for (int64_t i = 0; i < count; i++) next[i] += c * part->x0[j][i];
    }
    if (part->noise)
        for (int64_t i = 0; i < count; i++) next[i] += d * part->noise[i];
    if (part->observed) put_given(part, count, next);
    for (int64_t j = part->depth - 1; j > 0; j--) memcpy(part->x0[j], part->x0[j - 1], 4 * count);
    memcpy(part->x0[0], x0, 4 * count);
    memcpy(part->x, next, 4 * count);
}

/* A row under way: where it reads and writes, and its noise. */
typedef struct {
    const Table *table;
    int64_t slot;
    const float *c, *output, *unconditional;
    int masked;
    Draw step, again; /* of the step's noise, and of the noise of known data */
} Row;

/* Elements begin .. begin + count, a block at a time; noise and renoise (or 0) begin there, too. */
INLINE void advance_span(const Row *row, int64_t begin, int64_t count, const float *noise, const float *renoise) {
    const Table *table = row->table;
    for (int64_t done = 0; done < count; done += BLOCK) {
        int64_t from = begin + done, at = row->slot * table->elements + from;
        Part part = {row->c, row->output + from, row->unconditional ? row->unconditional + from : 0, table->x + at,
                     {table->x0[0] + at, table->x0[1] + at, table->x0[2] + at},
                     row->masked ? table->known + at : 0, row->masked ? table->observed + at : 0,
                     noise ? noise + done : 0, renoise ? renoise + done : 0, table->entries[row->slot].depth};
        advance_part(&part, count - done < BLOCK ? count - done : BLOCK);
    }
}

/* A short row's noise is drawn at once and lies as the row does; a long one's goes by blocks of counters. */
INLINE void advance_row(const Row *row) {
    int64_t n = row->table->elements, quarter = counters_per_row(n);
    int draws = row->c[D] != 0.0f, redraws = row->masked && row->c[RENOISE] != 0.0f;
    float noise[4 * BLOCK], renoise[4 * BLOCK];
    if (!draws && !redraws) {
        advance_span(row, 0, n, 0, 0);
    } else if (quarter <= BLOCK) {
        int64_t counters = quarter < n ? quarter : n;
        if (draws) normal_block(row->step, 0, counters, quarter, noise);
        if (redraws) normal_block(row->again, 0, counters, quarter, renoise);
        advance_span(row, 0, n, draws ? noise : 0, redraws ? renoise : 0);
    } else {
        for (int64_t first = 0; first < quarter; first += BLOCK) {
            int64_t count = quarter - first < BLOCK ? quarter - first : BLOCK;
            if (draws) normal_block(row->step, first, count, BLOCK, noise);
            if (redraws) normal_block(row->again, first, count, BLOCK, renoise);
            for (int64_t lane = 0, begin = first; lane < 4; lane++, begin += quarter)
                advance_span(row, begin, n - begin < count ? n - begin : count, draws ? noise + lane * BLOCK : 0,
                             redraws ? renoise + lane * BLOCK : 0);
        }
    }
}

/* Whether all values are finite. */
INLINE int64_t all_finite(const float *values, int64_t count) {
    const uint32_t exponent = 0x7F800000u;
    uint32_t bad = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, values + i, 4);
        bad |= (bits & exponent) == exponent;
    }
    return !bad;
}

VECTORISED int64_t pxserve_finite(const float *values, int64_t count) { return all_finite(values, count); }

/* One line of the rows in ``slots``; how many of them have ended by it, or -1 where ``output`` is not finite, and
 * nothing was done. ``output`` [network rows, stride]: first one per row, then, in the same order, one more for
 * each guided row. */
VECTORISED int64_t pxserve_advance(const Table *table, const int64_t *slots, int64_t rows, const float *output,
                                   int64_t stride) {
    int64_t network_rows = rows, twin = rows, ended = 0;
    for (int64_t r = 0; r < rows; r++) network_rows += table->entries[slots[r]].guided;
    if (!all_finite(output, network_rows * stride)) return -1;
    for (int64_t r = 0; r < rows; r++) {
        Entry *entry = table->entries + slots[r];
        uint32_t words = (uint32_t)entry->words;
        Draw draw = {(uint64_t)entry->seed, (uint32_t)(entry->line - entry->first), words + STREAM_STEP,
                     (uint32_t)entry->row};
        Row row = {table, slots[r], table->lines + COLUMNS * entry->line, output + stride * r,
                   entry->guided ? output + stride * twin++ : 0, entry->masked && table->observed, draw, draw};
        row.again.stream = words + STREAM_RENOISE;
        advance_row(&row);
        ended += ++entry->line == entry->end;
    }
    return ended;
}

/* The state before the first line: unit normals of stream 0, line 0, times ``deviation``. */
VECTORISED void pxserve_begin(const Table *table, const int64_t *slots, int64_t rows, float deviation) {
    int64_t n = table->elements, quarter = counters_per_row(n), counters = quarter < n ? quarter : n;
    float normals[4 * BLOCK];
    for (int64_t r = 0; r < rows; r++) {
        int64_t slot = slots[r];
        const Entry *entry = table->entries + slot;
        Draw draw = {(uint64_t)entry->seed, 0, (uint32_t)entry->words + STREAM_INITIAL, (uint32_t)entry->row};
        for (int64_t first = 0; first < counters; first += BLOCK) {
            int64_t count = counters - first < BLOCK ? counters - first : BLOCK;
            normal_block(draw, first, count, BLOCK, normals);
            for (int64_t lane = 0, begin = first; lane < 4; lane++, begin += quarter) {
                float *x = table->x + slot * n + begin;
                int64_t some = n - begin < count ? n - begin : count;
                for (int64_t i = 0; i < some; i++) x[i] = normals[lane * BLOCK + i] * deviation;
            }
        }
    }
}

/* Inputs of one network row: the scaled state, the model time, the conditions (or their null values). */
INLINE void gather_row(const Table *table, int64_t slot, int null, float *x, void *t, char *const *conditions,
                       int64_t to) {
    int64_t n = table->elements;
    const float *c = table->lines + COLUMNS * table->entries[slot].line, *state = table->x + slot * n;
    float scale = c[SCALE], *out = x + to * n;
    for (int64_t i = 0; i < n; i++) out[i] = state[i] * scale;
    if (table->integer_time) ((int64_t *)t)[to] = (int64_t)c[TIME];
    else ((float *)t)[to] = c[TIME];
    for (int64_t k = 0; k < table->conditions; k++) {
        Condition given = table->condition[k];
        const char *value = null && given.null ? given.null + slot * given.null_bytes
                                               : given.values + slot * given.row_bytes;
        memcpy(conditions[k] + to * given.row_bytes, value, given.row_bytes);
    }
}

/* The network's inputs for the rows in ``slots``, laid out as pxserve_advance reads its outputs. */
VECTORISED void pxserve_gather(const Table *table, const int64_t *slots, int64_t rows, float *x, void *t,
                               char *const *conditions) {
    int64_t twin = rows;
    for (int64_t r = 0; r < rows; r++) {
        gather_row(table, slots[r], 0, x, t, conditions, r);
        if (table->entries[slots[r]].guided) gather_row(table, slots[r], 1, x, t, conditions, twin++);
    }
}
