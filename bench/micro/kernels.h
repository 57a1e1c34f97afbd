// Every kernel of a set as something that can be run and timed, for `npm run bench`. Exact results are the tests'
// business; here the arguments are only realistic: sizes of real layers, values that are neither zero nor denormal.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace onebit {

struct KernelCase {
    std::string kernel;  // its name in KernelSet
    std::string what;    // sizes and where the data lies
    const char* unit;    // of `work`: "Gw/s", "Gmadd/s", "Gvalue/s" or "GB/s"
    double work;         // weights x tokens, multiply-adds, values or bytes of one run
    std::function<void()> run;
};

// `all`: also what takes a quarter of a gigabyte of memory.
std::vector<KernelCase> kernel_cases(const KernelSet& set, bool all);

}  // namespace onebit
