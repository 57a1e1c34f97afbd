// Every kernel set that can run here; those that this processor lacks are counted as skipped.
#pragma once

#include "check.h"
#include "kernels/kernels.h"

namespace check {

template <class F>
void each_set(F one) {
    int count = 0;
    const onebit::IsaEntry* table = onebit::isa_table(&count);
    for (int i = 0; i < count; ++i) {
        const char* why = nullptr;
        if (const onebit::KernelSet* kernels = onebit::choose_kernels(table[i].name, &why)) {
            one(*kernels);
        } else if (table[i].state == onebit::IsaState::not_present) {
            skip(table[i].name, "not on this processor");
        }
    }
}

}  // namespace check
