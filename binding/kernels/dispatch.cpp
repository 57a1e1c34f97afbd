// The one place that looks at the processor and chooses a kernel set.
#include <stdio.h>
#include <string.h>

#include "sets.h"

#if defined(__x86_64__) || defined(_M_X64)
#define ONEBIT_X86 1
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
#define ONEBIT_ARM 1
#if defined(_WIN32)
#include <windows.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__linux__)
#include <sys/auxv.h>
#endif
#endif

namespace onebit {
namespace {

// What this processor and this operating system offer, one flag per kernel set.
struct Features {
    bool avx2 = false, avxvnni = false, avx512 = false, avx512vnni = false;
    bool neon = false, neondot = false;
    bool amd = false, zen4 = false;
};

#if defined(ONEBIT_X86)

struct Registers {
    uint32_t eax, ebx, ecx, edx;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
#if defined(_MSC_VER) && !defined(__clang__)
    int r[4];
    __cpuidex(r, static_cast<int>(leaf), static_cast<int>(subleaf));
    return {static_cast<uint32_t>(r[0]), static_cast<uint32_t>(r[1]), static_cast<uint32_t>(r[2]),
            static_cast<uint32_t>(r[3])};
#else
    Registers r{};
    __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);  // zeros where the leaf does not exist
    return r;
#endif
}

uint64_t xgetbv0() {
#if defined(_MSC_VER) && !defined(__clang__)
    return _xgetbv(0);
#else
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return static_cast<uint64_t>(high) << 32 | low;
#endif
}

bool has(uint32_t value, int bit) { return (value >> bit & 1u) != 0; }

Features detect() {
    Features f;
    if (cpuid(0, 0).eax < 7) return f;
    const Registers one = cpuid(1, 0), seven = cpuid(7, 0), seven1 = seven.eax >= 1 ? cpuid(7, 1) : Registers{};
    // The operating system must save the wide registers when it switches threads: a processor may have AVX-512
    // and a system (or a virtual machine) may have left it off.
    const bool osxsave = has(one.ecx, 27);
    const uint64_t saved = osxsave ? xgetbv0() : 0;
    const bool saves_ymm = (saved & 0x06) == 0x06, saves_zmm = (saved & 0xe6) == 0xe6;
    const bool sse42 = has(one.ecx, 20), fma = has(one.ecx, 12), f16c = has(one.ecx, 29), avx = has(one.ecx, 28);
    f.avx2 = saves_ymm && sse42 && fma && f16c && avx && has(seven.ebx, 5);
    f.avxvnni = f.avx2 && has(seven1.eax, 4);
    const bool foundation = has(seven.ebx, 16), dq = has(seven.ebx, 17), bw = has(seven.ebx, 30),
               vl = has(seven.ebx, 31);
    f.avx512 = f.avx2 && saves_zmm && foundation && dq && bw && vl;
    f.avx512vnni = f.avx512 && has(seven.ecx, 11);
    const uint32_t family = (one.eax >> 8 & 15) + (one.eax >> 20 & 255);
    f.amd = cpuid(0, 0).ebx == 0x68747541;  // "Auth"enticAMD
    f.zen4 = f.amd && family == 0x19;
    return f;
}

// Zen 4 does one 512-bit byte shuffle a cycle, or two 256-bit ones, at a higher clock: 163-216 Gw/s a core with 512 bits,
// 208-310 with 256 (bench/native/kernels_bench.cpp), where Intel's servers reach 260-280 and 195-217. All x86 sets lay
// signs out alike.
KernelSet with_shuffles_of(const KernelSet& other, KernelSet set, const char* name) {
    set.i8 = other.i8;
    set.i4 = other.i4;
    set.name = name;
    return set;
}

// vpermi2w is one operation a cycle on Zen 4 and 5, and three in two cycles on Intel's processors (uops.info): there byte
// shuffles do more.
KernelSet without_permutes(KernelSet set) {
    set.i8_many = set.i8;
    set.many_tokens = 1;
    return set;
}

// A set with 512-bit registers as this processor likes it best.
KernelSet suited(const KernelSet& set, const Features& f, const char* with_avx2) {
    if (!f.amd) return without_permutes(set);
    return f.zen4 ? with_shuffles_of(kernels_avx2, set, with_avx2) : set;
}

#elif defined(ONEBIT_ARM)

bool has_dot_product() {
#if defined(_WIN32)
    constexpr DWORD kDotProduct = 43;  // PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE, missing from older SDKs
    return IsProcessorFeaturePresent(kDotProduct) != 0;
#elif defined(__APPLE__)
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &value, &size, nullptr, 0) == 0 && value != 0;
#elif defined(__linux__)
    constexpr unsigned long kAsimdDotProduct = 1ul << 20, kCrc32 = 1ul << 7;  // HWCAP_ASIMDDP, HWCAP_CRC32
    const unsigned long capabilities = getauxval(AT_HWCAP);
    return (capabilities & kAsimdDotProduct) != 0 && (capabilities & kCrc32) != 0;
#else
    return false;
#endif
}

Features detect() {
    Features f;
    f.neon = true;  // part of every 64-bit ARM processor that a desktop or phone has
    f.neondot = has_dot_product();
    return f;
}

#else

Features detect() { return {}; }

#endif

constexpr const char* kX86Only = "not built into this addon (x86-64 only)";
constexpr const char* kArmOnly = "not built into this addon (aarch64 only)";

struct Candidate {
    const char* name;
    const KernelSet* kernels;  // null where this build has none
    bool present;
    const char* missing;  // why it cannot be used when it is absent
};

constexpr int kCount = 7;

struct Table {
    IsaEntry entries[kCount];
    const char* missing[kCount];
};

Table make_table() {
    const Features f = detect();
#if defined(ONEBIT_X86)
    static const KernelSet suited_avx512 = suited(kernels_avx512, f, "avx512+avx2"),
                           suited_avx512vnni = suited(kernels_avx512vnni, f, "avx512vnni+avx2");
    const KernelSet *avx2 = &kernels_avx2, *avxvnni = &kernels_avxvnni, *avx512 = &suited_avx512,
                    *avx512vnni = &suited_avx512vnni, *neon = nullptr, *neondot = nullptr;
#elif defined(ONEBIT_ARM)
    const KernelSet *avx2 = nullptr, *avxvnni = nullptr, *avx512 = nullptr, *avx512vnni = nullptr,
                    *neon = &kernels_neon, *neondot = &kernels_neondot;
#else
    const KernelSet *avx2 = nullptr, *avxvnni = nullptr, *avx512 = nullptr, *avx512vnni = nullptr, *neon = nullptr,
                    *neondot = nullptr;
#endif
    const Candidate candidates[kCount] = {
        {"scalar", &kernels_scalar, true, ""},
        {"avx2", avx2, f.avx2, avx2 ? "this CPU or operating system lacks AVX2, FMA, F16C or SSE4.2" : kX86Only},
        {"avxvnni", avxvnni, f.avxvnni, avxvnni ? "this CPU lacks AVX-VNNI" : kX86Only},
        {"avx512", avx512, f.avx512, avx512 ? "this CPU or operating system lacks AVX-512 F, BW, DQ or VL" : kX86Only},
        {"avx512vnni", avx512vnni, f.avx512vnni, avx512vnni ? "this CPU or operating system lacks AVX-512 VNNI" : kX86Only},
        {"neon", neon, f.neon, neon ? "this CPU lacks NEON" : kArmOnly},
        {"neondot", neondot, f.neondot, neondot ? "this CPU lacks the dot product instructions (FEAT_DotProd)" : kArmOnly},
    };
    Table table;
    for (int i = 0; i < kCount; i++) {
        const Candidate& c = candidates[i];
        const IsaState state = !c.kernels ? IsaState::not_built : c.present ? IsaState::usable : IsaState::not_present;
        table.entries[i] = {c.name, state, c.present ? c.kernels : nullptr};
        table.missing[i] = c.missing;
    }
    return table;
}

const Table& table() {
    static const Table once = make_table();
    return once;
}

// Room for one sentence per thread: choose_kernels may be called by several environments at a time.
thread_local char sentence[400];

const char* list_usable() {
    static thread_local char list[120];
    list[0] = 0;
    for (const IsaEntry& e : table().entries) {
        if (!e.kernels) continue;
        if (list[0]) strncat(list, ", ", sizeof list - strlen(list) - 1);
        strncat(list, e.name, sizeof list - strlen(list) - 1);
    }
    return list;
}

}  // namespace

const IsaEntry* isa_table(int* count) {
    *count = kCount;
    return table().entries;
}

const KernelSet* choose_kernels(const char* name, const char** why) {
    const Table& t = table();
    if (!name || !*name) {
        const KernelSet* best = nullptr;
        for (const IsaEntry& e : t.entries) {
            if (e.state == IsaState::usable) best = e.kernels;
        }
        return best;  // never null: scalar is always usable
    }
    for (int i = 0; i < kCount; i++) {
        const IsaEntry& entry = t.entries[i];
        const bool by_what_runs = entry.kernels && strcmp(entry.kernels->name, name) == 0;
        if (strcmp(entry.name, name) != 0 && !by_what_runs) continue;
        if (entry.kernels) return entry.kernels;
        snprintf(sentence, sizeof sentence, "The instruction set '%s' cannot be used: %s. Usable here: %s.", name,
                 t.missing[i], list_usable());
        *why = sentence;
        return nullptr;
    }
    snprintf(sentence, sizeof sentence,
             "Unknown instruction set '%.40s'. Known: scalar, avx2, avxvnni, avx512, avx512vnni, neon, neondot. Usable "
             "here: %s.",
             name, list_usable());
    *why = sentence;
    return nullptr;
}

}  // namespace onebit
