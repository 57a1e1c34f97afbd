// What a model is, from JavaScript: the fields of its config, the kind of each matrix, the place of each tensor.
#include <algorithm>
#include <string_view>

#include "napi/fields.h"
#include "napi/objects.h"

namespace onebit {

namespace {

// The fields that come as plain numbers. Enumerations are numbers too, in the order of src/config/native-config.ts.
struct IntegerField {
    const char* name;
    int64_t low, high;
    int32_t Config::*to;
};
struct FlagField {
    const char* name;
    bool Config::*to;
};
constexpr IntegerField kIntegers[] = {{"vocab_size", 1, kMaxVocab, &Config::vocab_size},
                                      {"dim", 1, kMaxDim, &Config::dim},
                                      {"hidden_dim", 1, kMaxDim, &Config::hidden_dim},
                                      {"n_layers", 1, kMaxLayers, &Config::n_layers},
                                      {"n_heads", 1, kMaxHeads, &Config::n_heads},
                                      {"n_kv_heads", 1, kMaxHeads, &Config::n_kv_heads},
                                      {"head_dim", 1, kMaxHeadDim, &Config::head_dim},
                                      {"context_length", 1, kMaxContext, &Config::context_length},
                                      {"position_offset", 0, kMaxOffset, &Config::position_offset},
                                      {"rope_dims", 0, kMaxHeadDim, &Config::rope_dims},
                                      {"window", 0, kMaxContext, &Config::window},
                                      {"delta_k_heads", 0, kMaxHeads, &Config::delta_k_heads},
                                      {"delta_v_heads", 0, kMaxHeads, &Config::delta_v_heads},
                                      {"delta_k_dim", 0, kMaxHeadDim, &Config::delta_k_dim},
                                      {"delta_v_dim", 0, kMaxHeadDim, &Config::delta_v_dim},
                                      {"delta_conv", 0, kMaxConv, &Config::delta_conv}};
constexpr FlagField kFlags[] = {{"tied_head", &Config::tied_head},
                                {"norm_bias", &Config::norm_bias},
                                {"qk_norm", &Config::qk_norm},
                                {"attention_inner_norm", &Config::attention_inner_norm},
                                {"output_gate", &Config::output_gate},
                                {"ffn_inner_norm", &Config::ffn_inner_norm},
                                {"parallel_residual", &Config::parallel_residual}};
// Those that need a word more.
constexpr const char* kOthers[] = {"norm_eps", "rope_theta", "rope_style", "rope_scaling", "norm", "positions", "feed_forward", "activation", "delta_layers", "delta_head_order"};

bool read_scaling(Napi::Env env, Napi::Value value, RopeConfig* out) {
    Fields fields(env, value, "rope_scaling");
    int32_t type = 0;
    fields.integer("type", 0, 4, &type);
    fields.number("factor", &out->factor);
    fields.number("low_freq_factor", &out->low_freq_factor);
    fields.number("high_freq_factor", &out->high_freq_factor);
    fields.number("original_context", &out->original_context);
    fields.number("beta_fast", &out->beta_fast);
    fields.number("beta_slow", &out->beta_slow);
    fields.number("attention_factor", &out->attention_factor);
    fields.array("factors", kMaxHeadDim / 2, &out->factors);
    out->scaling = static_cast<RopeConfig::Scaling>(type);
    return fields.ok();
}

bool read_kind(Napi::Env env, Napi::Value value, LinearKind* out) {
    Fields fields(env, value, "kinds");
    int32_t form = 0, dtype = 0;
    fields.integer("form", 0, 3, &form);
    fields.integer("dtype", 0, 3, &dtype);
    fields.integer("rank", 0, kMaxDim, &out->rank);
    fields.integer("group", 0, 256, &out->group);
    fields.boolean("mid_scale", &out->mid_scale);
    fields.boolean("layernorm", &out->layernorm);
    fields.boolean("column", &out->column);
    fields.boolean("half", &out->half);
    fields.boolean("bias", &out->bias);
    fields.boolean("norm_in", &out->norm_in);
    fields.integer("rotation", 0, kMaxDim, &out->rotation);
    fields.boolean("rotation_signs", &out->rotation_signs);
    out->form = static_cast<LinearKind::Form>(form);
    out->dtype = static_cast<DType>(dtype);
    return fields.ok();
}

// One linear has at most 9 tensors; the embedding, the head and the norms are few.
constexpr size_t kMaxTensors = static_cast<size_t>(kMaxLayers) * 64 + 64;
constexpr size_t kMaxNames = kMaxTensors * 64;

}  // namespace

// Names, each on a line of its own: one string crosses faster than thousands.
std::vector<std::string> lines_of(std::string_view text) {
    std::vector<std::string> lines;
    while (!text.empty()) {
        const size_t end = std::min(text.find('\n'), text.size());
        lines.emplace_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return lines;
}

bool read_config(Napi::Env env, Napi::Value value, Config* out) {
    Fields fields(env, value, "config");
    int32_t style = 0, norm = 0, positions = 0, feed_forward = 0, activation = 0, head_order = 0;
    for (const auto& [name, low, high, to] : kIntegers) fields.integer(name, low, high, &(out->*to));
    for (const auto& [name, to] : kFlags) fields.boolean(name, &(out->*to));
    fields.number("norm_eps", &out->norm_eps);
    fields.number("rope_theta", &out->rope.theta);
    fields.integer("rope_style", 0, 1, &style);
    fields.integer("norm", 0, 1, &norm);
    fields.integer("positions", 0, 1, &positions);
    fields.integer("feed_forward", 0, 1, &feed_forward);
    fields.integer("activation", 0, 4, &activation);
    fields.array("delta_layers", kMaxLayers, &out->delta_layers);
    fields.integer("delta_head_order", 0, 1, &head_order);
    out->rope.interleaved = style == 1;
    out->norm = static_cast<NormKind>(norm);
    out->learned_positions = positions == 1;
    out->gated = feed_forward == 0;
    out->activation = static_cast<Activation>(activation);
    out->delta_tiled = head_order == 1;
    return fields.ok() && read_scaling(env, fields.get("rope_scaling"), &out->rope);
}

bool read_kinds(Napi::Env env, Napi::Value value, std::vector<NamedKind>* out) {
    Fields fields(env, value, "kinds");
    std::string names;
    fields.text("names", kMaxNames, &names);
    const Napi::Value list = fields.get("kinds");
    if (!fields.ok()) return false;
    for (std::string& name : lines_of(names)) out->push_back({std::move(name), {}});
    if (!list.IsArray() || list.As<Napi::Array>().Length() != out->size()) {
        throw_type(env, "kinds must have as many kinds as names.");
        return false;
    }
    const auto array = list.As<Napi::Array>();
    for (size_t i = 0; i < out->size(); ++i) {
        const Napi::HandleScope scope(env);
        if (!read_kind(env, array.Get(static_cast<uint32_t>(i)), &(*out)[i].kind)) return false;
    }
    return true;
}

bool read_tensors(Napi::Env env, Napi::Value value, std::vector<TensorSlot>* out) {
    Fields fields(env, value, "tensors");
    std::string names;
    std::vector<int32_t> types;
    std::vector<double> offsets, bytes;
    std::vector<uint32_t> crc32c;
    fields.text("names", kMaxNames, &names);
    fields.array("types", kMaxTensors, &types);
    fields.array("offsets", kMaxTensors, &offsets);
    fields.array("bytes", kMaxTensors, &bytes);
    fields.array("crc32c", kMaxTensors, &crc32c);
    if (!fields.ok()) return false;
    std::vector<std::string> lines = lines_of(names);
    const auto whole = [](double x) { return x >= 0 && x <= kMaxSafeInteger && x == static_cast<double>(static_cast<int64_t>(x)); };
    const auto known = [](int32_t type) { return type >= 0 && type <= static_cast<int32_t>(FileType::u8); };
    if (types.size() != lines.size() || offsets.size() != lines.size() || bytes.size() != lines.size() ||
        crc32c.size() != lines.size() || !std::all_of(offsets.begin(), offsets.end(), whole) ||
        !std::all_of(bytes.begin(), bytes.end(), whole) || !std::all_of(types.begin(), types.end(), known)) {
        throw_type(env, "tensors: names, types, offsets, bytes and crc32c must be of the same length, offsets and bytes integers >= 0.");
        return false;
    }
    for (size_t i = 0; i < lines.size(); ++i) {
        out->push_back({std::move(lines[i]), static_cast<FileType>(types[i]), static_cast<uint64_t>(offsets[i]),
                        static_cast<uint64_t>(bytes[i]), crc32c[i]});
    }
    return true;
}

Napi::Value config_fields(const Napi::CallbackInfo& call) {
    Napi::Array names = Napi::Array::New(call.Env());
    const auto add = [&](const char* name) { names.Set(names.Length(), name); };
    for (const auto& field : kIntegers) add(field.name);
    for (const auto& field : kFlags) add(field.name);
    for (const char* name : kOthers) add(name);
    return names;
}

}  // namespace onebit
