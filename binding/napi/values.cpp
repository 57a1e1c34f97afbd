// Reading arguments and making errors.
#include <cmath>
#include <cstdio>
#include <cstring>

#include "napi/addon.h"

namespace onebit {

namespace {

std::string number_text(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.15g", value);
    return text;
}

template <class T>
bool copy_array(Napi::Env env, Napi::Value value, const char* name, napi_typedarray_type type, const char* type_name,
                size_t max, std::vector<T>* out) {
    napi_typedarray_type actual = napi_int8_array;
    size_t length = 0;
    void* data = nullptr;
    if (!value.IsTypedArray() ||
        napi_get_typedarray_info(env, value, &actual, &length, &data, nullptr, nullptr) != napi_ok || actual != type) {
        throw_type(env, std::string(name) + " must be a " + type_name + ".");
        return false;
    }
    if (length > max) {
        throw_type(env, std::string(name) + " has " + std::to_string(length) + " elements, at most " +
                            std::to_string(max) + " are possible.");
        return false;
    }
    out->resize(length);
    if (length > 0) std::memcpy(out->data(), data, length * sizeof(T));
    return true;
}

}  // namespace

Napi::Value make_error(Napi::Env env, const Status& status) {
    const Napi::String code = Napi::String::New(env, status.code);
    const Napi::String message =
        Napi::String::New(env, status.message.empty() ? "There is not enough memory for this." : status.message);
    const Napi::FunctionReference& factory = Addon::of(env).error_factory;
    if (!factory.IsEmpty()) {
        return factory.Call({code, message});
    }
    napi_value plain = nullptr;
    return napi_create_error(env, code, message, &plain) == napi_ok ? Napi::Value(env, plain) : Napi::Value();
}

void throw_status(Napi::Env env, const Status& status) {
    const Napi::Value reason = make_error(env, status);
    if (!reason.IsEmpty() && !env.IsExceptionPending()) napi_throw(env, reason);
}

void throw_type(Napi::Env env, const std::string& message) {
    if (!env.IsExceptionPending()) napi_throw_type_error(env, "ERR_BAD_ARGUMENT", message.c_str());
}

bool read_double(Napi::Env env, Napi::Value value, const char* name, double min, double max, double* out) {
    if (!value.IsNumber()) {
        throw_type(env, std::string(name) + " must be a number.");
        return false;
    }
    *out = value.As<Napi::Number>().DoubleValue();
    if (*out >= min && *out <= max) return true;  // false for NaN
    throw_type(env, std::string(name) + " is " + number_text(*out) + ", not within " + number_text(min) + " to " +
                        number_text(max) + ".");
    return false;
}

bool read_float(Napi::Env env, Napi::Value value, const char* name, double min, double max, float* out) {
    double number = 0;
    if (!read_double(env, value, name, min, max, &number)) return false;
    *out = static_cast<float>(number);
    return true;
}

bool read_int(Napi::Env env, Napi::Value value, const char* name, int64_t min, int64_t max, int64_t* out) {
    double number = 0;
    if (!read_double(env, value, name, static_cast<double>(min), static_cast<double>(max), &number)) return false;
    if (number != std::floor(number)) {
        throw_type(env, std::string(name) + " is " + number_text(number) + ", not an integer.");
        return false;
    }
    *out = static_cast<int64_t>(number);
    return true;
}

bool read_int(Napi::Env env, Napi::Value value, const char* name, int64_t min, int64_t max, int32_t* out) {
    int64_t wide = 0;
    if (!read_int(env, value, name, min, max, &wide)) return false;
    *out = static_cast<int32_t>(wide);
    return true;
}

bool read_bool(Napi::Env env, Napi::Value value, const char* name, bool* out) {
    if (!value.IsBoolean()) {
        throw_type(env, std::string(name) + " must be true or false.");
        return false;
    }
    *out = value.As<Napi::Boolean>().Value();
    return true;
}

bool read_string(Napi::Env env, Napi::Value value, const char* name, size_t max_bytes, std::string* out) {
    size_t length = 0;
    if (!value.IsString() || napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok) {
        throw_type(env, std::string(name) + " must be a string.");
        return false;
    }
    if (length > max_bytes) {
        throw_type(env, std::string(name) + " is longer than " + std::to_string(max_bytes) + " bytes.");
        return false;
    }
    out->resize(length + 1);
    if (napi_get_value_string_utf8(env, value, out->data(), length + 1, &length) != napi_ok) return false;
    out->resize(length);
    return true;
}

bool read_object(Napi::Env env, Napi::Value value, const char* name, Napi::Object* out) {
    if (!value.IsObject()) {
        throw_type(env, std::string(name) + " must be an object.");
        return false;
    }
    *out = value.As<Napi::Object>();
    return true;
}

bool read_array(Napi::Env env, Napi::Value value, const char* name, size_t max, std::vector<int32_t>* out) {
    return copy_array(env, value, name, napi_int32_array, "Int32Array", max, out);
}

bool read_array(Napi::Env env, Napi::Value value, const char* name, size_t max, std::vector<unsigned char>* out) {
    return copy_array(env, value, name, napi_uint8_array, "Uint8Array", max, out);
}

bool read_array(Napi::Env env, Napi::Value value, const char* name, size_t max, std::vector<uint32_t>* out) {
    return copy_array(env, value, name, napi_uint32_array, "Uint32Array", max, out);
}

bool read_array(Napi::Env env, Napi::Value value, const char* name, size_t max, std::vector<float>* out) {
    return copy_array(env, value, name, napi_float32_array, "Float32Array", max, out);
}

bool read_array(Napi::Env env, Napi::Value value, const char* name, size_t max, std::vector<double>* out) {
    return copy_array(env, value, name, napi_float64_array, "Float64Array", max, out);
}

bool has(Napi::Object object, const char* name) {
    const Napi::Value value = object.Get(name);
    return !value.IsEmpty() && !value.IsUndefined();
}

}  // namespace onebit
