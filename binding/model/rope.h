// Rotary position embedding: the frequencies of a model, with the scaling its config asks for.
#pragma once

#include <vector>

#include "model/config.h"

namespace onebit {

struct RopeTable {
    std::vector<double> frequency;  // (dims / 2) radians per position
    double magnitude = 1;           // YaRN's attention factor: multiplied into cos and sin

    // cos, sin: (dims / 2) of one position.
    void angles(int position, float* cos, float* sin) const;
};

RopeTable make_rope_table(const RopeConfig& config, int dims);

}  // namespace onebit
