// The struct of a probe set, filled with the functions of the surrounding object. Included inside namespace onebit,
// after its anonymous namespace, with ONEBIT_PROBE_SET and ONEBIT_PROBE_NAME defined.

const ProbeSet ONEBIT_PROBE_SET = {
    .name = ONEBIT_PROBE_NAME,
    .read_plain = read_plain,
    .read_prefetch_near = read_prefetch_near,
    .read_prefetch_both = read_prefetch_both,
    .int8_macs = int8_macs,
    .f32_macs = f32_macs,
};
