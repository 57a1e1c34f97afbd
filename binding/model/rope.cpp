#include "model/model.h"

#include <algorithm>
#include <cmath>

#include "kernels/math.h"

namespace onebit {

namespace {

constexpr double kTwoPi = 6.283185307179586476925286766559;

// Llama 3.1: low frequencies are divided by `factor`, high ones kept, those between interpolated
// (arXiv 2407.21783; the same formula as Hugging Face's rope_type "llama3").
double llama3_scaled(double frequency, const RopeConfig& config) {
    const double wavelength = kTwoPi / frequency;
    const double longest_kept = config.original_context / config.high_freq_factor;
    const double shortest_divided = config.original_context / config.low_freq_factor;
    if (wavelength < longest_kept) return frequency;
    if (wavelength > shortest_divided) return frequency / config.factor;
    const double share = (config.original_context / wavelength - config.low_freq_factor) /
                         (config.high_freq_factor - config.low_freq_factor);
    return (1 - share) * frequency / config.factor + share * frequency;
}

// YaRN (arXiv 2309.00071, section 3.2): pairs that turn more than beta_fast times over the original context are
// kept, those that turn less than beta_slow times are divided by `factor`, with a linear ramp between.
void scale_yarn(const RopeConfig& config, int dims, RopeTable* table) {
    const auto pair_that_turns = [&](double turns) {
        return dims * log_exact(config.original_context / (turns * kTwoPi)) / (2 * log_exact(config.theta));
    };
    const double low = std::max(std::floor(pair_that_turns(config.beta_fast)), 0.0);
    double high = std::min(std::ceil(pair_that_turns(config.beta_slow)), dims - 1.0);
    if (high == low) high += 0.001;
    for (size_t i = 0; i < table->frequency.size(); ++i) {
        const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
        table->frequency[i] = table->frequency[i] / config.factor * ramp + table->frequency[i] * (1 - ramp);
    }
    table->magnitude = config.attention_factor > 0 ? config.attention_factor : std::max(1.0, 0.1 * log_exact(config.factor) + 1);
}

}  // namespace

RopeTable make_rope_table(const RopeConfig& config, int dims) {
    RopeTable table;
    table.frequency.resize(static_cast<size_t>(dims / 2));
    for (size_t i = 0; i < table.frequency.size(); ++i) {
        const double exponent = 2.0 * static_cast<double>(i) / dims;
        double frequency = 1 / pow_exact(config.theta, exponent);
        if (config.scaling == RopeConfig::Scaling::linear) frequency /= config.factor;
        if (config.scaling == RopeConfig::Scaling::llama3) frequency = llama3_scaled(frequency, config);
        if (config.scaling == RopeConfig::Scaling::factors) frequency /= static_cast<double>(config.factors[i]);
        table.frequency[i] = frequency;
    }
    if (config.scaling == RopeConfig::Scaling::yarn) scale_yarn(config, dims, &table);
    return table;
}

void RopeTable::angles(int position, float* cos, float* sin) const {
    for (size_t i = 0; i < frequency.size(); ++i) {
        double c = 0, s = 0;
        sincos_exact(frequency[i] * position, &s, &c);
        cos[i] = static_cast<float>(c * magnitude);
        sin[i] = static_cast<float>(s * magnitude);
    }
}

}  // namespace onebit
