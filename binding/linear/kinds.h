// The kinds of matrices. Which one a matrix of a file becomes depends on what sign matrices multiply, too.
#pragma once

#include "linear/linear.h"

namespace onebit {

extern const MatrixKind kDenseFloats;  // f32, f16, bf16 rows times floats
extern const MatrixKind kBytesFloats;  // int8 rows times floats
extern const MatrixKind kBytesPlanes;  // int8 rows times two int8 planes
extern const MatrixKind kSignFloats;   // rows of sign bits as the file has them times floats
extern const MatrixKind kSignTables;   // signs in the kernels' blocks times rounded activations
extern const MatrixKind kGroupFloats;  // signs with one f16 scale per row and 128 columns
extern const MatrixKind kGroupTables;

}  // namespace onebit
