// What becomes of the sums of a product. Given: MODE.

#define PLAIN 0   // x * weight^T + bias, f32
#define GATED 1   // activation(x * gate^T) * (x * up^T), f32: tiles of gate and up in turn
#define GRID 2    // sums of segments as whole multiples of 2^-24, added: 64 bits
#define ROUNDED 3 // the same, rounded once to f32

// A total on the grid, and what stands for one that is no number: sums of others stay far below it.
#define NO_NUMBER LONG_MIN
long add_on_grid(long total, float sum) {
    if (total == NO_NUMBER || !(fabs(sum) < 6.8719477e10f)) // 2^36
        return NO_NUMBER;
    return total + convert_long_rte(sum * 16777216.0f);
}

#if MODE == GRID
typedef long Out;
#else
typedef float Out;
#endif

// What is written. `extra`: whether there is a bias, or which activation.
#if MODE == PLAIN
#define FINISH(total, sum, other, bias, output, extra) ((extra) ? (sum) + (bias)[output] : (sum))
#elif MODE == GATED
#define FINISH(total, sum, other, bias, output, extra) (activate(extra, sum) * (other))
#elif MODE == GRID
#define FINISH(total, sum, other, bias, output, extra) (total)
#else
#define FINISH(total, sum, other, bias, output, extra)                                         \
    ((total) == NO_NUMBER ? NAN : convert_float_rte(total) * 5.9604645e-8f)
#endif

// What the kernels of products have in common. At the beginning: which output a work-item makes, and
// nothing added up yet, for R rows of x.
#define BEGIN(R)                                                                               \
    uint output = get_global_id(0), lane = output % LANES, tile = output / LANES;              \
    if (tile * LANES >= outputs)                                                               \
        return;                                                                                \
    uint row = get_group_id(1) * (R);                                                          \
    float sums[R], others[R];                                                                  \
    long totals[R];                                                                            \
    UNROLL                                                                                     \
    for (uint r = 0; r < (R); r++) {                                                           \
        sums[r] = others[r] = 0.0f;                                                            \
        totals[r] = 0;                                                                         \
    }

// After each strip or column: `left` of a segment.
#define NEXT(R)                                                                                \
    if ((MODE == GRID || MODE == ROUNDED) && --left == 0) {                                    \
        left = segment;                                                                        \
        UNROLL                                                                                 \
        for (uint r = 0; r < (R); r++) {                                                       \
            totals[r] = add_on_grid(totals[r], sums[r]);                                       \
            sums[r] = 0.0f;                                                                    \
        }                                                                                      \
    }

// At the end: outputs `first`.. of `width`.
#define END(R)                                                                                 \
    if (output >= outputs)                                                                     \
        return;                                                                                \
    for (uint r = 0; r < (R) && row + r < rows; r++) {                                         \
        if (MODE == GRID || MODE == ROUNDED)                                                   \
            totals[r] = add_on_grid(totals[r], sums[r]);                                       \
        out[(row + r) * width + first + output] =                                              \
            FINISH(totals[r], sums[r], others[r], bias, output, extra);                        \
    }
