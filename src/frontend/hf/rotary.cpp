#include "frontend/hf/rotary.h"

#include <ATen/ATen.h>

#include <array>
#include <cmath>
#include <numbers>
#include <string_view>

#include "base/error.h"

namespace shardpipe::hf {
namespace {

at::Tensor exponents(int64_t dim) {
  return at::arange(0, dim, 2, at::kLong).to(at::kFloat) / dim;
}

}  // namespace

at::Tensor default_inv_freq(double base, int64_t dim) {
  return at::pow(at::Scalar(base), exponents(dim)).reciprocal();
}

RotaryAngles rotary_angles(const at::Tensor& positions, const at::Tensor& inv_freq) {
  const at::Tensor angles = positions.to(at::kFloat).unsqueeze(1) * inv_freq.unsqueeze(0);
  return {angles.cos(), angles.sin()};
}

namespace {

constexpr double kMaxFactor = 1e9;
constexpr int64_t kMaxPositions = int64_t{1} << 40;

// What every type starts from.
struct Rope {
  const Config& config;      // the whole file
  const Config& parameters;  // the rotary object in it
  int64_t dim;
  int64_t max_positions;
  double base;

  double factor() const { return parameters.number("factor", 1.0 / kMaxFactor, kMaxFactor); }
  // Where the file gives it twice, transformers prefers the outer one.
  int64_t original_positions() const {
    const Config& source = config.has("original_max_position_embeddings") ? config : parameters;
    return source.integer("original_max_position_embeddings", 2, kMaxPositions, max_positions);
  }
};

RotaryFrequencies make_default(const Rope& rope) {
  return {default_inv_freq(rope.base, rope.dim)};
}

RotaryFrequencies make_linear(const Rope& rope) {
  return {default_inv_freq(rope.base, rope.dim) / rope.factor()};
}

RotaryFrequencies make_dynamic(const Rope& rope) {
  const double factor = rope.factor();
  const auto length = static_cast<double>(rope.max_positions);
  const double growth = factor * length / length - (factor - 1);  // 1 but for rounding, as in transformers
  const double exponent = static_cast<double>(rope.dim) / static_cast<double>(rope.dim - 2);
  const double base = rope.dim > 2 ? rope.base * std::pow(growth, exponent) : rope.base;
  return {default_inv_freq(base, rope.dim), 1.0, rope.max_positions};
}

RotaryFrequencies make_llama3(const Rope& rope) {
  const double factor = rope.factor();
  const double low = rope.parameters.number("low_freq_factor", 1.0 / kMaxFactor, kMaxFactor);
  const double high = rope.parameters.number("high_freq_factor", 1.0 / kMaxFactor, kMaxFactor);
  if (high <= low) {
    throw_input(
        "{}; a number above low_freq_factor, {}, is expected", rope.parameters.subject("high_freq_factor"), low);
  }
  const auto length = static_cast<double>(rope.original_positions());
  const at::Tensor inv_freq = default_inv_freq(rope.base, rope.dim);
  const at::Tensor wavelength = inv_freq.reciprocal() * (2 * std::numbers::pi);
  const at::Tensor scaled = at::where(wavelength > length / low, inv_freq / factor, inv_freq);
  const at::Tensor smooth = (wavelength.reciprocal() * length - low) / (high - low);
  const at::Tensor blended = (1 - smooth) * scaled / factor + smooth * scaled;
  const at::Tensor medium =
      at::logical_not(wavelength < length / high).logical_and(at::logical_not(wavelength > length / low));
  return {at::where(medium, blended, scaled)};
}

double yarn_attention_scaling(const Config& parameters, double factor) {
  if (const auto given = parameters.find_number("attention_factor", 0.0, kMaxFactor)) {
    return *given;
  }
  const auto scale = [&](double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; };
  const double mscale = parameters.number("mscale", -kMaxFactor, kMaxFactor, 0.0);
  const double mscale_all_dim = parameters.number("mscale_all_dim", -kMaxFactor, kMaxFactor, 0.0);
  return mscale != 0 && mscale_all_dim != 0 ? scale(mscale) / scale(mscale_all_dim) : scale(1.0);
}

// YaRN (https://arxiv.org/abs/2309.00071): low frequencies interpolated, high ones kept, a ramp between.
RotaryFrequencies make_yarn(const Rope& rope) {
  const auto length = static_cast<double>(rope.original_positions());
  const double factor = rope.parameters.written("factor") && !rope.parameters.has("factor")
                            ? static_cast<double>(rope.max_positions) / length
                            : rope.factor();
  const auto dim = static_cast<double>(rope.dim);
  const auto correction_dim = [&](Key key, double fallback) {
    const double rotations = rope.parameters.number(key, 0.0, kMaxFactor, fallback);
    return dim * std::log(length / ((rotations == 0 ? fallback : rotations) * 2 * std::numbers::pi)) /
           (2 * std::log(rope.base));
  };
  double low = correction_dim("beta_fast", 32);
  double high = correction_dim("beta_slow", 1);
  if (rope.parameters.boolean("truncate", true)) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  high = low == high ? high + 0.001 : high;

  const at::Tensor ramp = at::clamp((at::arange(rope.dim / 2, at::kFloat) - low) / (high - low), 0, 1);
  const at::Tensor kept = 1 - ramp;
  const at::Tensor frequencies = at::pow(at::Scalar(rope.base), exponents(rope.dim));
  const at::Tensor extrapolated = frequencies.reciprocal();
  const at::Tensor interpolated = (frequencies * factor).reciprocal();
  return {interpolated * (1 - kept) + extrapolated * kept, yarn_attention_scaling(rope.parameters, factor)};
}

// LongRoPE (https://arxiv.org/abs/2402.13753) with its factors for rows within the original length.
RotaryFrequencies make_longrope(const Rope& rope) {
  const int64_t original = rope.original_positions();
  const auto count = static_cast<size_t>(rope.dim / 2);
  const std::vector<double> factors = rope.parameters.numbers("short_factor", count, 1.0 / kMaxFactor, kMaxFactor);
  const double factor = rope.parameters.has("factor")
                            ? rope.factor()
                            : static_cast<double>(rope.max_positions) / static_cast<double>(original);
  double scaling = factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(original)));
  scaling = rope.parameters.number("attention_factor", 0.0, kMaxFactor, scaling);
  const at::Tensor short_factors = at::tensor(factors, at::kDouble).to(at::kFloat);
  const at::Tensor inv_freq = (short_factors * at::pow(at::Scalar(rope.base), exponents(rope.dim))).reciprocal();
  return {inv_freq, scaling, original};
}

struct RopeType {
  std::string_view name;
  RotaryFrequencies (*make)(const Rope&);
};

constexpr std::array<RopeType, 6> kTypes = {{
    {"default", make_default},
    {"linear", make_linear},
    {"dynamic", make_dynamic},
    {"yarn", make_yarn},
    {"longrope", make_longrope},
    {"llama3", make_llama3},
}};

}  // namespace

RotaryFrequencies rotary_frequencies(const Config& config, int64_t head_dim, int64_t max_positions) {
  const Config scaling = config.object("rope_scaling");
  const Config parameters = scaling.json().empty() ? config.object("rope_parameters") : scaling;
  for (const Config* source : {&parameters, &config}) {
    if (source->number("partial_rotary_factor", 0.0, 1.0, 1.0) != 1.0) {
      throw_usage("{}: partial rotary embeddings are not supported yet", source->subject("partial_rotary_factor"));
    }
  }
  for (const auto& [key, value] : parameters.json().items()) {
    if (value.is_object()) {
      throw_usage("{}: rotary parameters by layer type are not supported yet", parameters.subject(key.c_str()));
    }
  }
  const Config& theta = parameters.has("rope_theta") ? parameters : config;
  const Rope rope{config, parameters, head_dim, max_positions, theta.number("rope_theta", 1.0, 1e18, 10'000.0)};
  const Key type_key("rope_type", "type");
  const std::string type = parameters.string(type_key, "default");
  std::string known;
  for (const RopeType& row : kTypes) {
    if (row.name == type) {
      return row.make(rope);
    }
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  throw_usage("{}: known rotary types are {}", parameters.subject(type_key), known);
}

}  // namespace shardpipe::hf
