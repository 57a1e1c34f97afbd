// The one place that looks at the processor and chooses a kernel set.
#include <stdio.h>
#include <string.h>

#include <atomic>

#include "sets.h"
#include "tiles.h"

#if defined(__x86_64__) || defined(_M_X64)
#define ONEBIT_X86 1
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#if defined(ONEBIT_HAS_AMX)
#include <sys/syscall.h>
#include <unistd.h>
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
    bool avx2 = false, avxvnni = false, avx512 = false, avx512vnni = false, amx = false;
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

// What Linux answers about tiles, a state of the processor that a process must ask for: arch_prctl of numbers that older headers lack.
#if defined(ONEBIT_HAS_AMX)
constexpr int kSupportedStates = 0x1021, kAskForState = 0x1023, kTileData = 18;

bool system_has_tiles() {
    uint64_t states = 0;
    return syscall(SYS_arch_prctl, kSupportedStates, &states) == 0 && (states >> kTileData & 1) != 0;
}

bool ask_for_tiles() { return syscall(SYS_arch_prctl, kAskForState, kTileData) == 0; }
#endif

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
#if defined(ONEBIT_HAS_AMX)
    const bool vbmi = has(seven.ecx, 1), gfni = has(seven.ecx, 8), tiles = has(seven.edx, 24) && has(seven.edx, 25);
    const bool saves_tiles = (saved & 0x60000) == 0x60000;
    f.amx = f.avx512vnni && vbmi && gfni && tiles && saves_tiles && system_has_tiles();
#endif
    const uint32_t family = (one.eax >> 8 & 15) + (one.eax >> 20 & 255);
    f.amd = cpuid(0, 0).ebx == 0x68747541;  // "Auth"enticAMD
    f.zen4 = f.amd && family == 0x19;
    return f;
}

#if defined(ONEBIT_HAS_AVX512) || defined(ONEBIT_HAS_AVX512VNNI)
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
#endif

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

// Whether this process may use tiles. Asked once, and only when a set with tiles is chosen: from then on the system makes room for
// them, 8 KB, wherever a signal interrupts a thread.
std::atomic<bool> refused{false};

bool may_use_tiles() {
#if defined(ONEBIT_HAS_AMX)
    static const bool may = ask_for_tiles();
    if (!may) refused.store(true);
    return may;
#else
    return false;
#endif
}

#if defined(ONEBIT_X86)
constexpr const char* kX86Only = "not built into this addon";
#else
constexpr const char* kX86Only = "not built into this addon (x86-64 only)";
#endif
constexpr const char* kLinuxOnly = "not built into this addon (x86-64 Linux only)";
constexpr const char* kArmOnly = "not built into this addon (aarch64 only)";

struct Candidate {
    const char* name;
    const KernelSet* kernels;  // null where this build has none
    bool present;
    const char* missing;  // why it cannot be used when it is absent
    bool tiles = false;

    IsaState state() const {
        const bool usable = present && !(tiles && refused.load());
        return !kernels ? IsaState::not_built : usable ? IsaState::usable : IsaState::not_present;
    }
    // To be used: null when it is not usable, or the system refuses it now.
    const KernelSet* allowed() const { return state() == IsaState::usable && (!tiles || may_use_tiles()) ? kernels : nullptr; }
};

constexpr int kCount = 8;

struct Table {
    Candidate candidates[kCount];
};

Table make_table() {
    const Features f = detect();
    const KernelSet *avx2 = nullptr, *avxvnni = nullptr, *avx512 = nullptr, *avx512vnni = nullptr, *amx = nullptr,
                    *neon = nullptr, *neondot = nullptr;
#if defined(ONEBIT_HAS_AVX2)
    avx2 = &kernels_avx2;
#endif
#if defined(ONEBIT_HAS_AVXVNNI)
    avxvnni = &kernels_avxvnni;
#endif
#if defined(ONEBIT_HAS_AVX512)
    static const KernelSet suited_avx512 = suited(kernels_avx512, f, "avx512+avx2");
    avx512 = &suited_avx512;
#endif
#if defined(ONEBIT_HAS_AVX512VNNI)
    static const KernelSet suited_avx512vnni = suited(kernels_avx512vnni, f, "avx512vnni+avx2");
    avx512vnni = &suited_avx512vnni;
#endif
#if defined(ONEBIT_HAS_AMX)
    static const KernelSet over_avx512vnni = with_tiles(suited_avx512vnni, kernels_amx);
    amx = &over_avx512vnni;
#endif
#if defined(ONEBIT_HAS_NEON)
    neon = &kernels_neon;
#endif
#if defined(ONEBIT_HAS_NEONDOT)
    neondot = &kernels_neondot;
#endif
    return {{
        {"scalar", &kernels_scalar, true, ""},
        {"avx2", avx2, f.avx2, avx2 ? "this CPU or operating system lacks AVX2, FMA, F16C or SSE4.2" : kX86Only},
        {"avxvnni", avxvnni, f.avxvnni, avxvnni ? "this CPU lacks AVX-VNNI" : kX86Only},
        {"avx512", avx512, f.avx512, avx512 ? "this CPU or operating system lacks AVX-512 F, BW, DQ or VL" : kX86Only},
        {"avx512vnni", avx512vnni, f.avx512vnni, avx512vnni ? "this CPU or operating system lacks AVX-512 VNNI" : kX86Only},
        {"amx", amx, f.amx, amx ? "this CPU lacks AMX, or the operating system does not let this process use it" : kLinuxOnly, true},
        {"neon", neon, f.neon, neon ? "this CPU lacks NEON" : kArmOnly},
        {"neondot", neondot, f.neondot, neondot ? "this CPU lacks the dot product instructions (FEAT_DotProd)" : kArmOnly},
    }};
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
    for (const Candidate& c : table().candidates) {
        if (c.state() != IsaState::usable) continue;
        if (list[0]) strncat(list, ", ", sizeof list - strlen(list) - 1);
        strncat(list, c.name, sizeof list - strlen(list) - 1);
    }
    return list;
}

}  // namespace

KernelSet with_tiles(KernelSet set, const TileProducts& tiles) {
    set.name = tiles.name;
    const auto quantize = set.i8_many.quantize;
    set.i8_many = tiles.signs;
    set.i8_many.quantize = quantize;
    set.many_tokens = tiles.many_tokens;
    set.ternary = tiles.ternary;
    set.ternary_grouped = tiles.ternary_grouped;
    set.q8_i8 = tiles.q8_i8;
    return set;
}

TileCheck check_tiles() {
#if defined(ONEBIT_HAS_AMX)
    const char* why = nullptr;
    if (choose_kernels("amx", &why)) return kernels_amx.as_plain() ? TileCheck::right : TileCheck::wrong;
#endif
    return TileCheck::absent;
}

const IsaEntry* isa_table(int* count) {
    static thread_local IsaEntry entries[kCount];  // a state may change while other threads look
    *count = kCount;
    for (int i = 0; i < kCount; i++) {
        const Candidate& c = table().candidates[i];
        entries[i] = {c.name, c.state(), c.state() == IsaState::usable ? c.kernels->name : nullptr};
    }
    return entries;
}

const KernelSet& row_kernels() {
    const KernelSet* best = &kernels_scalar;
    for (const Candidate& c : table().candidates) {
        if (c.state() == IsaState::usable && !c.tiles) best = c.kernels;
    }
    return *best;
}

const KernelSet* choose_kernels(const char* name, const char** why) {
    const Table& t = table();
    if (!name || !*name) {
        for (int i = kCount; i-- > 0;) {
            if (const KernelSet* best = t.candidates[i].allowed()) return best;
        }
        return &kernels_scalar;  // never: it is among them
    }
    for (const Candidate& c : t.candidates) {
        const bool by_what_runs = c.state() == IsaState::usable && strcmp(c.kernels->name, name) == 0;
        if (strcmp(c.name, name) != 0 && !by_what_runs) continue;
        if (const KernelSet* kernels = c.allowed()) return kernels;
        snprintf(sentence, sizeof sentence, "The instruction set '%s' cannot be used: %s. Usable here: %s.", name, c.missing,
                 list_usable());
        *why = sentence;
        return nullptr;
    }
    snprintf(sentence, sizeof sentence,
             "Unknown instruction set '%.40s'. Known: scalar, avx2, avxvnni, avx512, avx512vnni, amx, neon, neondot. Usable "
             "here: %s.",
             name, list_usable());
    *why = sentence;
    return nullptr;
}

}  // namespace onebit
