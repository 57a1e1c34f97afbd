// The products by tiles with tiles in plain C++ (kernels/plain_tiles.inl), over the best set that has blocks of 64 rows: so
// their logic is tested on processors without tiles too, and under sanitizers, which do not see what tiles read and write.
#pragma once

#include "kernels/kernels.h"

namespace check {

// Null where only the scalar set can run, whose blocks are of one row.
const onebit::KernelSet* plain_tile_set();

}  // namespace check
