// The struct of a kernel set, filled with the functions of the surrounding object. Included inside namespace
// onebit, after its anonymous namespace, with ONEBIT_KERNEL_SET defined as the set's variable ONEBIT_KERNEL_NAME as
// its name, and ONEBIT_I8_MANY where products of many tokens have functions of their own.

const KernelSet ONEBIT_KERNEL_SET = {
    .name = ONEBIT_KERNEL_NAME,
    .sign_row_block = kSignRowBlock,
    .sign_block_bytes = sign_block_bytes,
    .sign_pack = sign_pack,
    .sign_unpack_row = sign_unpack_row,
    .i8 = {quantize, table_bytes, table_build, sign_i8, grouped_i8, kTileCols},
#ifdef ONEBIT_I8_MANY
    .i8_many = ONEBIT_I8_MANY,
    .many_tokens = kManyTokens,
#else
    .i8_many = {quantize, table_bytes, table_build, sign_i8, grouped_i8, kTileCols},
    .many_tokens = 1,
#endif
    .i4 = {quantize4, planes_bytes, planes_build, sign_i4, grouped_i4, kTileCols},
    .sign_f32 = sign_f32,
    .grouped_f32 = grouped_f32,
    .dense_f32 = dense_f32,
    .q8_i8 = q8_i8,
    .q8_f32 = q8_f32,
    .quantize = quantize,
    .quantize4 = quantize4,
    .multiply = multiply,
    .scale_i32 = scale_i32,
    .scale_planes = scale_planes,
    .scale_f32 = scale_f32,
    .add = add,
    .rmsnorm = rmsnorm,
    .layernorm = layernorm,
    .activate = activate,
    .gate_by = gate_by,
    .rope = rope,
    .attend = attend,
    .delta_rule = delta_rule,
    .unit_length = unit_length,
    .convolve = convolve,
    .max_sum_exp = max_sum_exp,
    .f32_to_f16 = f32_to_f16,
    .f16_to_f32 = f16_to_f32,
    .crc32c = crc32c,
};
