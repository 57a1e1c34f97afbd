#include "system/file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#if defined(_WIN32)
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace onebit {

namespace {

// One system call moves at most this much: Linux stops at 2^31 - 4096, Windows at 2^32 - 1.
constexpr size_t kMostPerCall = size_t{1} << 30;

Status truncated(uint64_t offset) {
    return error("ERR_TRUNCATED", "The file ends before byte " + std::to_string(offset) + "; it was cut while it was read.");
}

}  // namespace

#if defined(_WIN32)

File::~File() {
    if (handle_) CloseHandle(handle_);
}

Status File::open(const std::string& utf8_path) {
    const int length = MultiByteToWideChar(CP_UTF8, 0, utf8_path.c_str(), -1, nullptr, 0);
    std::wstring wide(static_cast<size_t>(length > 0 ? length : 1), L'\0');
    MultiByteToWideChar(CP_UTF8, 0, utf8_path.c_str(), -1, wide.data(), length);
    HANDLE handle = CreateFileW(wide.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                                nullptr, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
    if (handle == INVALID_HANDLE_VALUE) {
        return error("ERR_READ", "The file cannot be opened (Windows error " + std::to_string(GetLastError()) + ").");
    }
    handle_ = handle;
    LARGE_INTEGER size;
    if (!GetFileSizeEx(handle, &size)) return error("ERR_READ", "The file's size cannot be read.");
    size_ = static_cast<uint64_t>(size.QuadPart);
    return {};
}

Status File::read_at(uint64_t offset, void* buffer, size_t bytes) const {
    auto* out = static_cast<unsigned char*>(buffer);
    while (bytes > 0) {
        OVERLAPPED position = {};
        position.Offset = static_cast<DWORD>(offset);
        position.OffsetHigh = static_cast<DWORD>(offset >> 32);
        DWORD got = 0;
        if (!ReadFile(handle_, out, static_cast<DWORD>(std::min(bytes, kMostPerCall)), &got, &position)) {
            if (GetLastError() == ERROR_HANDLE_EOF) return truncated(offset);
            return error("ERR_READ", "Reading the file failed (Windows error " + std::to_string(GetLastError()) + ").");
        }
        if (got == 0) return truncated(offset);
        out += got;
        offset += got;
        bytes -= got;
    }
    return {};
}

#else

File::~File() {
    if (handle_ >= 0) ::close(handle_);
}

Status File::open(const std::string& utf8_path) {
    handle_ = ::open(utf8_path.c_str(), O_RDONLY | O_CLOEXEC);
    if (handle_ < 0) return error("ERR_READ", std::string("The file cannot be opened: ") + std::strerror(errno) + ".");
    struct stat info;
    if (fstat(handle_, &info) != 0 || !S_ISREG(info.st_mode)) return error("ERR_READ", "The path is not a regular file.");
    size_ = static_cast<uint64_t>(info.st_size);
    return {};
}

Status File::read_at(uint64_t offset, void* buffer, size_t bytes) const {
    auto* out = static_cast<unsigned char*>(buffer);
    while (bytes > 0) {
        const ssize_t got = pread(handle_, out, std::min(bytes, kMostPerCall), static_cast<off_t>(offset));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return error("ERR_READ", std::string("Reading the file failed: ") + std::strerror(errno) + ".");
        if (got == 0) return truncated(offset);
        out += got;
        offset += static_cast<uint64_t>(got);
        bytes -= static_cast<size_t>(got);
    }
    return {};
}

#endif

}  // namespace onebit
