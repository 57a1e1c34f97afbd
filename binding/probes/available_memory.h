// How much memory can be had without pushing anything out.
#pragma once

#include <cstdint>
#include <string>

#include "system/status.h"

namespace onebit {

// Bytes, caches that the system would give up included; within a control group (v2) what it still allows. 0: this
// system does not say.
uint64_t available_memory();

// ERR_OUT_OF_MEMORY when `bytes` more would not fit, `what` naming what they are for. The system itself would say yes:
// it promises memory that it does not have, and kills somebody when it is used.
Status check_available(uint64_t bytes, const std::string& what);

}  // namespace onebit
