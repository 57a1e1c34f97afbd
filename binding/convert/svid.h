// Sign-value-independent decomposition (the paper's Eq. 4): W ~ sign(W) * (h g^T), where h g^T is a rank-1
// approximation of |W|.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "system/pool.h"
#include "system/status.h"

namespace onebit {

// Both methods find the same product h g^T: the best rank-1 approximation of a non-negative matrix is non-negative,
// so the singular vectors solve the factorisation too. They differ in when they stop and in how the scale is shared.
// - svd: power iteration until the approximation no longer improves; the singular value is shared evenly.
// - nmf: what the official script gets from scikit-learn 1.4.2, NMF(n_components=1, init='random', random_state=0): its
//   random start (NumPy's RandomState(0)), its coordinate descent, which for one component is alternating least squares, and
//   its stopping rule (violation below 1e-4 of the first, at most 200 rounds). The scale is shared as it falls out there.
//   distill/onebit_distill/model/svid.py has the same.
enum class SvidMethod : uint8_t { svd, nmf };

struct SvidOptions {
    SvidMethod method = SvidMethod::svd;
    std::optional<double> split;  // |h| = sigma^split, |g| = sigma^(1 - split); in 0..1. None: as the method says
    const std::atomic<bool>* cancel = nullptr;  // looked at within milliseconds; may be null
};

struct SvidResult {
    double relative_error = 0;  // || |W| - h g^T || / ||W||, Frobenius, of the g and h that were written; 0 for W = 0
    int rounds = 0;
};

// w (rows, cols); g (cols), h (rows), both >= 0. The result does not depend on the number of threads. The signs
// come from pack_signs. ERR_NOT_FINITE, ERR_CANCELLED.
Status svid(const float* w, int rows, int cols, const SvidOptions& options, Pool& pool, float* g, float* h,
            SvidResult* result);

}  // namespace onebit
