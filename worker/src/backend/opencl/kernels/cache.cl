// How the KV cache lies, and what a row sees of it: what append.cl and attention.cl have in common.
//
// A page holds 16 positions of a KV head: for each number of a key that number of all 16, then their
// values one after another, each padded to whole vectors of 16. Numbers are f16 of 8 significant bits.
// Where CODES, they are codes of a byte in the same order, and behind them stand the scales of groups,
// f16: of keys, those of the 16 positions for each group; of values, those of the groups for each
// position. A number is its code times its scale, rounded to 8 significant bits.
//
// Given: SIZE, numbers of a head; BLOCK, positions of a block; CODES.

#define VALUE_SIZE ((SIZE + LANES - 1) / LANES * LANES)
#define NUMBERS ((SIZE + VALUE_SIZE) * LANES)
#define GROUPS (SIZE / GROUP)
// Counted in f16, as everything that says where something is in the cache.
#if CODES
#define KEY_SCALES (NUMBERS / 2)
#define VALUE_SCALES (KEY_SCALES + GROUPS * LANES)
#define PAGE (VALUE_SCALES + GROUPS * LANES)
#else
#define PAGE NUMBERS
#endif
#define PAGES ((BLOCK + LANES - 1) / LANES)

// Positions of a split.
#define SPLIT 256
// The greatest score where there is none.
#define NONE -1e30f
// The largest finite f16 of 8 bits.
#define SHORT_MAX 65280.0f

// Where the page of a slot begins, for a KV head of `heads`. A buffer has less than 4 GiB.
uint page_of(uint slot, uint head, uint heads) {
    uint block = slot / BLOCK, page = slot % BLOCK / LANES;
    return ((block * heads + head) * PAGES + page) * PAGE;
}

// Rounds to 8 significant bits, as many as bf16 has: attention multiplies such numbers.
float shortened(float x) {
    float large = x * 65537.0f; // 2^16 + 1
    return large - (large - x);
}

// The positions that a row sees, as a range of two.
uint2 seen_by(uint position, uint window) {
    uint end = position + 1;
    return (uint2)(end - min(end, window), end);
}

// What is kept of one result of a split: the greatest score, the sum of the weights, then the sums.
#define PART (SIZE + 2)
