// Rotary embedding on the way to the cache, and attention over it.
//
// A page holds 16 positions of a KV head: for each number of a key that number of all 16, then their
// values one after another, each padded to whole vectors of 16. Numbers are f16 of 8 significant bits.
// Given: SIZE, numbers of a head; BLOCK, positions of a block.

#define VALUE_SIZE ((SIZE + LANES - 1) / LANES * LANES)
#define PAGE ((SIZE + VALUE_SIZE) * LANES)
#define PAGES ((BLOCK + LANES - 1) / LANES)
// Of numbers of a head and of positions, 32 are a group: the products of even ones are added up in
// order, those of odd ones beside them, then both sums, and groups in order.
// Positions of a split.
#define SPLIT 256
// The greatest score where there is none.
#define NONE -1e30f

// Where the page of a slot begins, for a KV head of `heads`.
ulong page_of(uint slot, uint head, uint heads) {
    uint block = slot / BLOCK, page = slot % BLOCK / LANES;
    return (((ulong)block * heads + head) * PAGES + page) * PAGE;
}

// Rounds to 8 significant bits, as many as bf16 has: attention multiplies such numbers.
float shortened(float x) {
    float large = x * 65537.0f; // 2^16 + 1
    return large - (large - x);
}

// The same, and what is less than 2^-60 is 0.
float shortened_or_zero(float x) {
    return fabs(x) < 8.673617e-19f ? 0.0f : shortened(x);
}

// A number as the cache keeps it.
float kept(float x) {
    return shortened(fmax(fmin(x, 65280.0f), -65280.0f));
}

// e^x for x <= 0, rounded likewise; exactly 1 for 0, and 0 below 2^-60.
float weight_of(float x) {
    float power = x * M_LOG2E_F;
    float n = (power + ROUND) - ROUND;
    float rest = power - n;
    float terms = 0.00958285f;
    terms = fma(terms, rest, 0.05590643f);
    terms = fma(terms, rest, 0.24024099f);
    terms = fma(terms, rest, 0.6931242f);
    float y = fma(terms, rest, 1.0f) * as_float((convert_int(fmax(n, -126.0f)) + 127) << 23);
    return x < -41.58883f ? 0.0f : shortened(y);
}

// A head of a row to a work-group: normed where `normed`, rotated, and q to `out`, k and v to the cache.
kernel void rope_append(global const float *qkv, global const float *query_norm,
                        global const float *key_norm, global const float *table,
                        global const uint *positions, global const uint *slots, global half *cache,
                        global float *out, uint query_heads, uint kv_heads, uint normed,
                        float epsilon) {
    local float numbers[SIZE];
    local float lanes[LANES];
    uint head = get_group_id(0), row = get_group_id(1);
    uint at = get_local_id(0), items = get_local_size(0);
    global const float *from = qkv + (row * (query_heads + 2 * kv_heads) + head) * SIZE;
    for (uint i = at; i < SIZE; i += items)
        numbers[i] = from[i];
    bool query = head < query_heads, value = head >= query_heads + kv_heads;
    if (normed && !value) {
        float scale = norm_scale(numbers, SIZE, epsilon, lanes);
        for (uint i = at; i < SIZE; i += items)
            numbers[i] = numbers[i] * scale * (query ? query_norm[i] : key_norm[i]);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (!value) {
        global const float *angles = table + (ulong)positions[row] * SIZE;
        for (uint i = at; i < SIZE / 2; i += items) {
            float a = numbers[i], b = numbers[i + SIZE / 2];
            float cosine = angles[i], sine = angles[i + SIZE / 2];
            numbers[i] = a * cosine - b * sine;
            numbers[i + SIZE / 2] = b * cosine + a * sine;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (query) {
        for (uint i = at; i < SIZE; i += items)
            out[(row * query_heads + head) * SIZE + i] = numbers[i];
        return;
    }
    uint slot = slots[row], lane = slot % BLOCK % LANES;
    uint kv_head = value ? head - query_heads - kv_heads : head - query_heads;
    global half *page = cache + page_of(slot, kv_head, kv_heads);
    for (uint i = at; i < SIZE; i += items) {
        uint to = value ? SIZE * LANES + lane * VALUE_SIZE + i : i * LANES + lane;
        vstore_half_rte(kept(numbers[i]), to, page);
    }
}

// The positions that a row sees, as a range of two.
uint2 seen_by(uint position, uint window) {
    uint end = position + 1;
    return (uint2)(end - min(end, window), end);
}

// A row, a query head and a split to a work-group of SPLIT: the greatest score, the sum of weights
// relative to it, and the weighted sum of values, to `parts`. `rows` says for each row where its block
// table begins; `first` is the row that group 0 of dimension 2 has.
__attribute__((reqd_work_group_size(SPLIT, 1, 1))) kernel void
attend_split(global const float *q, global const half *cache, global const uint *positions,
             global const uint *tables, global const uint *blocks, global const uint *kv_of_query,
             global float *parts, uint query_heads, uint kv_heads, float by, uint window,
             uint first, uint splits) {
    local float query[SIZE], weights[SPLIT], greatest[SPLIT], lanes[LANES];
    uint at = get_local_id(0), split = get_group_id(0), head = get_group_id(1);
    uint row = first + get_group_id(2);
    uint2 seen = seen_by(positions[row], window);
    uint start = split * SPLIT;
    if (start >= seen.y || start + SPLIT <= seen.x)
        return;
    for (uint i = at; i < SIZE; i += SPLIT)
        query[i] = shortened_or_zero(q[(row * query_heads + head) * SIZE + i] * by);
    global const uint *table = blocks + tables[row];
    uint kv_head = kv_of_query[head], position = start + at;
    bool sees = position >= seen.x && position < seen.y;
    barrier(CLK_LOCAL_MEM_FENCE);
    float score = -INFINITY;
    if (sees) {
        uint slot = table[position / BLOCK] * BLOCK + position % BLOCK;
        global const half *keys = cache + page_of(slot, kv_head, kv_heads);
        uint lane = slot % BLOCK % LANES;
        score = 0.0f;
        for (uint group = 0; group < SIZE; group += GROUP) {
            float even = 0.0f, odd = 0.0f;
            uint end = min(group + GROUP, (uint)SIZE);
            for (uint i = group; i < end; i += 2) {
                even = fma(query[i], vload_half(i * LANES + lane, keys), even);
                odd = fma(query[i + 1], vload_half((i + 1) * LANES + lane, keys), odd);
            }
            score = score + (even + odd);
        }
    }
    greatest[at] = sees ? score : NONE;
    for (uint width = SPLIT / 2; width > 0; width /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (at < width)
            greatest[at] = fmax(greatest[at], greatest[at + width]);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    float most = fmax(greatest[0], NONE);
    weights[at] = sees ? weight_of(score - most) : 0.0f;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (at < LANES) {
        float sum = 0.0f;
        for (uint i = at; i < SPLIT; i += LANES)
            sum = sum + weights[i];
        lanes[at] = sum;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    ulong place = ((ulong)get_group_id(2) * query_heads + head) * splits + split;
    global float *part = parts + place * (SIZE + 2);
    if (at == 0) {
        part[0] = most;
        part[1] = folded(lanes);
    }
    uint from = max(seen.x, start), to = min(seen.y, start + SPLIT);
    for (uint i = at; i < SIZE; i += SPLIT) {
        float sum = 0.0f;
        for (uint group = from / GROUP * GROUP; group < to; group += GROUP) {
            float both[2] = {0.0f, 0.0f};
            for (uint p = max(from, group); p < min(to, group + GROUP); p++) {
                uint slot = table[p / BLOCK] * BLOCK + p % BLOCK;
                global const half *page = cache + page_of(slot, kv_head, kv_heads) + SIZE * LANES;
                float value = vload_half(slot % BLOCK % LANES * VALUE_SIZE + i, page);
                float more = fma(weights[p - start], value, p & 1 ? both[1] : both[0]);
                both[0] = p & 1 ? both[0] : more;
                both[1] = p & 1 ? more : both[1];
            }
            sum = sum + (both[0] + both[1]);
        }
        part[2 + i] = sum;
    }
}

// Takes a row's and head's splits together, in order: a work-group to each. Where heads are whole groups
// of columns, the result goes out as codes, too.
kernel void attend_fold(global const float *parts, global const uint *positions, global float *out,
                        global char *codes, global float4 *groups, uint query_heads, uint window,
                        uint first, uint splits) {
    local float numbers[SIZE];
    uint head = get_group_id(0), row = first + get_group_id(1);
    uint2 seen = seen_by(positions[row], window);
    ulong place = ((ulong)get_group_id(1) * query_heads + head) * splits;
    for (uint i = get_local_id(0); i < SIZE; i += get_local_size(0)) {
        float most = NONE, weight = 0.0f, sum = 0.0f;
        for (uint split = seen.x / SPLIT; split * SPLIT < seen.y; split++) {
            global const float *part = parts + (place + split) * (SIZE + 2);
            float both = fmax(most, part[0]);
            float a = exponential(most - both), b = exponential(part[0] - both);
            weight = fma(weight, a, part[1] * b);
            sum = fma(sum, a, part[2 + i] * b);
            most = both;
        }
        float number = sum * (1.0f / weight);
        numbers[i] = number;
        out[(row * query_heads + head) * SIZE + i] = number;
    }
#if SIZE % GROUP == 0
    barrier(CLK_LOCAL_MEM_FENCE);
    uint group = (row * query_heads + head) * (SIZE / GROUP);
    for (uint g = get_local_id(0); g < SIZE / GROUP; g += get_local_size(0))
        QUANTISE(numbers + g * GROUP, GROUP, codes + (group + g) * GROUP, groups + group + g);
#endif
}
