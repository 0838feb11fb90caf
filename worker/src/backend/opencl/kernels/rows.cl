// What reads whole rows: norms, and quantising.

// The RMS norm of a row, by a work-group. It goes out as numbers and, 32 columns at a time, as codes.
kernel void norm(global const float *x, global const float *weight, global float *out,
                 global char *codes, global float4 *groups, uint columns, float epsilon,
                 local float *numbers) {
    local float lanes[LANES];
    uint row = get_group_id(0), at = get_local_id(0), items = get_local_size(0);
    for (uint i = at; i < columns; i += items)
        numbers[i] = x[row * columns + i];
    float scale = norm_scale(numbers, columns, epsilon, lanes);
    for (uint i = at; i < columns; i += items) {
        float number = numbers[i] * scale * weight[i];
        numbers[i] = number;
        out[row * columns + i] = number;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    uint depth = (columns + GROUP - 1) / GROUP;
    for (uint g = at; g < depth; g += items)
        QUANTISE(numbers + g * GROUP, min((uint)GROUP, columns - g * GROUP),
                 codes + (row * depth + g) * GROUP, groups + row * depth + g);
}

// The same of residual + sum, which becomes the residual; the sum is normed first where `has_post`.
kernel void add_norm(global float *residual, global const float *sum, global const float *post,
                     global const float *weight, global float *out, global char *codes,
                     global float4 *groups, uint columns, float epsilon, uint has_post,
                     local float *numbers) {
    local float lanes[LANES];
    uint row = get_group_id(0), at = get_local_id(0), items = get_local_size(0);
    for (uint i = at; i < columns; i += items)
        numbers[i] = sum[row * columns + i];
    float post_scale = has_post ? norm_scale(numbers, columns, epsilon, lanes) : 1.0f;
    for (uint i = at; i < columns; i += items) {
        float number = numbers[i];
        if (has_post)
            number = number * post_scale * post[i];
        number = residual[row * columns + i] + number;
        residual[row * columns + i] = number;
        numbers[i] = number;
    }
    float scale = norm_scale(numbers, columns, epsilon, lanes);
    for (uint i = at; i < columns; i += items) {
        float number = numbers[i] * scale * weight[i];
        numbers[i] = number;
        out[row * columns + i] = number;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    uint depth = (columns + GROUP - 1) / GROUP;
    for (uint g = at; g < depth; g += items)
        QUANTISE(numbers + g * GROUP, min((uint)GROUP, columns - g * GROUP),
                 codes + (row * depth + g) * GROUP, groups + row * depth + g);
}

// A work-item to a group.
kernel void quantise(global const float *x, global char *codes, global float4 *groups, uint columns,
                     uint count) {
    uint index = get_global_id(0);
    if (index >= count)
        return;
    uint depth = (columns + GROUP - 1) / GROUP;
    uint row = index / depth, first = index % depth * GROUP;
    global const float *from = x + row * columns + first;
    QUANTISE(from, min((uint)GROUP, columns - first), codes + index * GROUP, groups + index);
}

// `count` numbers of chosen rows.
kernel void select_rows(global const float *x, global const uint *rows, global float *out,
                        uint columns, uint count) {
    uint index = get_global_id(0);
    if (index < count)
        out[index] = x[rows[index / columns] * columns + index % columns];
}
