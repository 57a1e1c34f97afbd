// The whole test framework: count, say where, sum up.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

namespace check {

inline int passed = 0, failed = 0, skipped = 0;

inline bool that(bool ok, const char* what, const char* file, int line) {
    if (ok) {
        ++passed;
    } else {
        ++failed;
        if (failed <= 50) std::printf("FAILED %s:%d  %s\n", file, line, what);
    }
    return ok;
}

inline void skip(const char* what, const char* why) {
    ++skipped;
    std::printf("skipped: %s (%s)\n", what, why);
}

// ONEBIT_VARIANTS=few: emulators and sanitizers, which are slow, leave out what each program says at its top.
inline bool few_variants() {
    const char* wanted = std::getenv("ONEBIT_VARIANTS");
    return wanted && std::string(wanted) == "few";
}

inline int summary() {
    std::printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed == 0 ? 0 : 1;
}

}  // namespace check

#define CHECK(condition) check::that((condition), #condition, __FILE__, __LINE__)
