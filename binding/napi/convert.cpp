// Conversions of weights for the importers: short ones run where they are called (TypeScript gives them pieces of a
// few megabytes), svid runs as a job of the worker.
#include <algorithm>
#include <memory>
#include <vector>

#include "convert/convert.h"
#include "convert/svid.h"
#include "napi/addon.h"

namespace onebit {
namespace {

// A piece larger than this would hold the event loop up for longer than anybody should wait.
constexpr int64_t kMaxPieceElements = int64_t{1} << 28;
constexpr int64_t kMaxSide = int64_t{1} << 20;

struct Shape {
    size_t rows = 0, cols = 0;
    size_t elements() const { return rows * cols; }
};

bool read_shape(Napi::Env env, Napi::Value rows, Napi::Value cols, size_t block, Shape* out) {
    int64_t r = 0, c = 0;
    if (!read_int(env, rows, "rows", 1, kMaxSide, &r) || !read_int(env, cols, "cols", 1, kMaxSide, &c)) return false;
    if (r * c > kMaxPieceElements) {
        throw_type(env, "rows x cols: at most 2^28 elements at once");
        return false;
    }
    if (c % static_cast<int64_t>(block) != 0) {
        throw_type(env, "cols: must be a multiple of " + std::to_string(block));
        return false;
    }
    *out = {static_cast<size_t>(r), static_cast<size_t>(c)};
    return true;
}

// The bytes of a typed array, valid during this call only. `data` may be null when it is empty.
bool view(Napi::Env env, Napi::Value value, napi_typedarray_type type, const char* name, size_t elements,
          const uint8_t** data) {
    const bool right = value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == type;
    if (!right || value.As<Napi::TypedArray>().ElementLength() != elements) {
        const char* kind = type == napi_float32_array ? "Float32Array" : "Uint8Array";
        throw_type(env, std::string(name) + ": must be a " + kind + " of " + std::to_string(elements) + " elements");
        return false;
    }
    void* start = nullptr;
    if (napi_get_typedarray_info(env, value, nullptr, nullptr, &start, nullptr, nullptr) != napi_ok) return false;
    *data = static_cast<const uint8_t*>(start);
    return true;
}

bool view_floats(Napi::Env env, Napi::Value value, const char* name, size_t elements, const float** data) {
    const uint8_t* bytes = nullptr;
    if (!view(env, value, napi_float32_array, name, elements, &bytes)) return false;
    *data = reinterpret_cast<const float*>(bytes);  // a Float32Array is aligned
    return true;
}

bool read_type(Napi::Env env, Napi::Value value, SourceType* out) {
    std::string name;
    if (!read_string(env, value, "type", 16, &name)) return false;
    if (source_type_from_name(name.c_str(), out)) return true;
    throw_type(env, "type: '" + name + "' is not a known source type");
    return false;
}

// A typed array, or an empty handle with an exception pending.
template <class Array>
Array new_array(Napi::Env env, size_t elements) {
    Array array = Array::New(env, elements);
    return env.IsExceptionPending() ? Array() : array;
}

bool failed(Napi::Env env, const Status& status) {
    if (status.ok()) return false;
    throw_status(env, status);
    return true;
}

// toF32(source, type, rows, cols)
Napi::Value to_f32(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    SourceType type{};
    Shape shape;
    const uint8_t* source = nullptr;
    if (!read_type(env, info[1], &type) || !read_shape(env, info[2], info[3], block_elements(type), &shape)) return {};
    const size_t bytes = shape.elements() / block_elements(type) * block_bytes(type);
    if (!view(env, info[0], napi_uint8_array, "source", bytes, &source)) return {};
    Napi::Float32Array out = new_array<Napi::Float32Array>(env, shape.elements());
    if (out.IsEmpty() || failed(env, rows_to_f32(type, source, shape.rows, shape.cols, out.Data()))) return {};
    return out;
}

Napi::Value quantise(Napi::Env env, const float* rows, Shape shape) {
    Napi::Uint8Array data = new_array<Napi::Uint8Array>(env, shape.elements());
    if (data.IsEmpty()) return {};
    Napi::Float32Array scales = new_array<Napi::Float32Array>(env, shape.rows);
    if (scales.IsEmpty()) return {};
    int8_t* values = reinterpret_cast<int8_t*>(data.Data());
    if (failed(env, rows_to_q8(rows, shape.rows, shape.cols, values, scales.Data()))) return {};
    Napi::Object out = Napi::Object::New(env);
    out.Set("data", data);
    out.Set("scales", scales);
    return out;
}

// fromF32(rows, type, n_rows, cols)
Napi::Value from_f32(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    std::string type;
    Shape shape;
    const float* rows = nullptr;
    if (!read_string(env, info[1], "type", 16, &type) || !read_shape(env, info[2], info[3], 1, &shape)) return {};
    if (!view_floats(env, info[0], "rows", shape.elements(), &rows)) return {};
    if (type == "q8") return quantise(env, rows, shape);
    if (type != "f16" && type != "bf16") {
        throw_type(env, "type: must be f16, bf16 or q8");
        return {};
    }
    Napi::Uint8Array data = new_array<Napi::Uint8Array>(env, shape.elements() * 2);
    if (data.IsEmpty()) return {};
    const auto convert = type == "f16" ? rows_to_f16 : rows_to_bf16;
    if (failed(env, convert(rows, shape.rows, shape.cols, data.Data()))) return {};
    Napi::Object out = Napi::Object::New(env);
    out.Set("data", data);
    return out;
}

// packSigns(rows, n_rows, cols)
Napi::Value pack(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    Shape shape;
    const float* rows = nullptr;
    if (!read_shape(env, info[1], info[2], 8, &shape)) return {};
    if (!view_floats(env, info[0], "rows", shape.elements(), &rows)) return {};
    Napi::Uint8Array out = new_array<Napi::Uint8Array>(env, shape.elements() / 8);
    if (out.IsEmpty() || failed(env, pack_signs(rows, shape.rows, shape.cols, out.Data()))) return {};
    return out;
}

// splitQ1_0(source, n_rows, cols)
Napi::Value split(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    Shape shape;
    const uint8_t* source = nullptr;
    if (!read_shape(env, info[1], info[2], 128, &shape)) return {};
    if (!view(env, info[0], napi_uint8_array, "source", shape.elements() / 128 * 18, &source)) return {};
    Napi::Uint8Array sign = new_array<Napi::Uint8Array>(env, shape.elements() / 8);
    if (sign.IsEmpty()) return {};
    Napi::Uint16Array scale = new_array<Napi::Uint16Array>(env, shape.elements() / 128);
    if (scale.IsEmpty()) return {};
    uint8_t* scale_bytes = reinterpret_cast<uint8_t*>(scale.Data());
    if (failed(env, split_q1_0(source, shape.rows, shape.cols, sign.Data(), scale_bytes))) return {};
    Napi::Object out = Napi::Object::New(env);
    out.Set("sign", sign);
    out.Set("scale", scale);
    return out;
}

// splitTernary(source, type, n_rows, cols)
Napi::Value split_codes(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    SourceType type{};
    Shape shape;
    const uint8_t* source = nullptr;
    if (!read_type(env, info[1], &type)) return {};
    if (!is_ternary(type)) {
        throw_type(env, "type: must be one of ternary blocks");
        return {};
    }
    const size_t block = block_elements(type);
    if (!read_shape(env, info[2], info[3], block, &shape)) return {};
    if (!view(env, info[0], napi_uint8_array, "source", shape.elements() / block * block_bytes(type), &source)) return {};
    Napi::Uint8Array codes = new_array<Napi::Uint8Array>(env, shape.elements() / 4);
    if (codes.IsEmpty()) return {};
    Napi::Uint16Array scale = new_array<Napi::Uint16Array>(env, shape.elements() / block);
    if (scale.IsEmpty()) return {};
    uint8_t* scale_bytes = reinterpret_cast<uint8_t*>(scale.Data());
    if (failed(env, split_ternary(type, source, shape.rows, shape.cols, codes.Data(), scale_bytes))) return {};
    Napi::Object out = Napi::Object::New(env);
    out.Set("codes", codes);
    out.Set("scale", scale);
    return out;
}

// Codes of a shape, four to a byte, which `make` writes from a source of so many bytes.
template <class Make>
Napi::Value make_codes(Napi::Env env, Napi::Value from, size_t bytes, Shape shape, const Make& make) {
    const uint8_t* source = nullptr;
    if (!view(env, from, napi_uint8_array, "source", bytes, &source)) return {};
    Napi::Uint8Array codes = new_array<Napi::Uint8Array>(env, shape.elements() / 4);
    if (codes.IsEmpty() || failed(env, make(source, codes.Data()))) return {};
    return codes;
}

// gatherCodes(source, shift, n_rows, cols)
Napi::Value gather(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    int32_t shift = 0;
    Shape shape;
    if (!read_int(env, info[1], "shift", 0, 6, &shift) || !read_shape(env, info[2], info[3], 4, &shape)) return {};
    return make_codes(env, info[0], shape.elements(), shape, [&](const uint8_t* source, uint8_t* codes) {
        return gather_codes(source, shift, shape.rows, shape.cols, codes);
    });
}

// i2sCodes(source, first, n_rows, cols)
Napi::Value codes_of_i2_s(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    int32_t first = 0;
    Shape shape;
    if (!read_int(env, info[1], "first", 0, 127, &first) || !read_shape(env, info[2], info[3], 4, &shape)) return {};
    const size_t blocks = (static_cast<size_t>(first) + shape.elements() + 127) / 128;
    return make_codes(env, info[0], blocks * 32, shape, [&](const uint8_t* source, uint8_t* codes) {
        return i2_s_codes(source, static_cast<size_t>(first), shape.rows, shape.cols, codes);
    });
}

template <class Array, class Element>
Array copy_out(Napi::Env env, const Element* from, size_t elements) {
    Array array = new_array<Array>(env, elements);
    if (!array.IsEmpty()) std::copy_n(from, elements, array.Data());
    return array;
}

class SvidJob final : public Job, public Settling {
public:
    SvidJob(Napi::Env env, const float* from, int n_rows, int n_cols, const SvidOptions& how)
        : Settling(env), rows(n_rows), cols(n_cols), options(how), w(from, from + elements()), sign(elements() / 8) {}
    Settling* settling() override { return this; }

    size_t elements() const { return static_cast<size_t>(rows) * static_cast<size_t>(cols); }

    void run(Pool& pool) override {
        const size_t n_rows = static_cast<size_t>(rows), n_cols = static_cast<size_t>(cols);
        g.resize(n_cols);
        h.resize(n_rows);
        options.cancel = cancel.get();
        status = svid(w.data(), rows, cols, options, pool, g.data(), h.data(), &found);
        if (status.ok()) status = pack_signs(w.data(), n_rows, n_cols, sign.data());
        std::vector<float>().swap(w);  // the result waits for JavaScript; the largest part of us need not
    }

    Napi::Value result(Napi::Env env) override {
        const auto sign_out = copy_out<Napi::Uint8Array>(env, sign.data(), sign.size());
        if (sign_out.IsEmpty()) return {};
        const auto g_out = copy_out<Napi::Float32Array>(env, g.data(), g.size());
        if (g_out.IsEmpty()) return {};
        const auto h_out = copy_out<Napi::Float32Array>(env, h.data(), h.size());
        if (h_out.IsEmpty()) return {};
        Napi::Object out = Napi::Object::New(env);
        out.Set("sign", sign_out);
        out.Set("g", g_out);
        out.Set("h", h_out);
        out.Set("relativeError", found.relative_error);
        return out;
    }

private:
    int rows, cols;
    SvidOptions options;
    std::vector<float> w;       // (rows, cols)
    std::vector<uint8_t> sign;  // (rows, cols / 8)
    std::vector<float> g, h;
    SvidResult found;
};

bool read_svid_options(Napi::Env env, Napi::Value value, SvidOptions* out) {
    Napi::Object options;
    std::string method;
    if (!read_object(env, value, "options", &options)) return false;
    if (!read_string(env, options.Get("method"), "method", 16, &method)) return false;
    if (method != "svd" && method != "nmf") {
        throw_type(env, "method: must be svd or nmf");
        return false;
    }
    out->method = method == "nmf" ? SvidMethod::nmf : SvidMethod::svd;
    if (!has(options, "split")) return true;
    double split = 0;
    if (!read_double(env, options.Get("split"), "split", 0, 1, &split)) return false;
    out->split = split;
    return true;
}

// svid(w, rows, cols, {method, split?})
Napi::Value svid_async(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    SvidOptions options;
    int32_t rows = 0, cols = 0;
    if (!read_svid_options(env, info[3], &options)) return {};
    if (!read_int(env, info[1], "rows", 1, kMaxSide, &rows) || !read_int(env, info[2], "cols", 1, kMaxSide, &cols)) {
        return {};
    }
    if (cols % 8 != 0) {
        throw_type(env, "cols: must be a multiple of 8");
        return {};
    }
    const float* w = nullptr;
    const size_t elements = static_cast<size_t>(rows) * static_cast<size_t>(cols);
    if (!view_floats(env, info[0], "w", elements, &w)) return {};
    return Addon::of(env).post(env, std::make_unique<SvidJob>(env, w, rows, cols, options));
}

}  // namespace

void register_convert(Napi::Object exports) {
    export_call<to_f32>(exports, "toF32");
    export_call<from_f32>(exports, "fromF32");
    export_call<pack>(exports, "packSigns");
    export_call<split>(exports, "splitQ1_0");
    export_call<split_codes>(exports, "splitTernary");
    export_call<gather>(exports, "gatherCodes");
    export_call<codes_of_i2_s>(exports, "i2sCodes");
    export_call<svid_async>(exports, "svid");
}

}  // namespace onebit
