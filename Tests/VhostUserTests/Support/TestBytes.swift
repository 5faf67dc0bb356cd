import Glibc
import HostSystem

/// Descriptors this process has open: only for a process of its own, as other tests open and close too.
func openDescriptorCount() -> Int {
    guard let folder = unsafe opendir("/proc/self/fd") else { return -1 }
    defer { unsafe closedir(folder) }
    var count = 0
    while unsafe readdir(folder) != nil { count += 1 }
    return count
}

/// Mappings of memory files that this process has: only for a process of its own.
func memoryFileMappingCount() -> Int {
    guard let file = unsafe fopen("/proc/self/maps", "r") else { return -1 }
    defer { unsafe fclose(file) }
    var text = [CChar](repeating: 0, count: 4096)
    var lines = 0
    while unsafe fgets(&text, Int32(text.count), file) != nil {
        let line = text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
        if String(decoding: line, as: UTF8.self).contains("/memfd:") { lines += 1 }
    }
    return lines
}

/// How many descriptors of this process are open on the same file or eventfd as `one`. Counting those
/// of one file only, a test is not disturbed by others that run beside it.
func openCount(sharing one: FileDescriptor) -> Int {
    guard let wanted = identity(one.rawValue) else { return -1 }
    guard let folder = unsafe opendir("/proc/self/fd") else { return -1 }
    defer { unsafe closedir(folder) }
    var count = 0
    while let entry = unsafe readdir(folder) {
        let name = unsafe withUnsafeBytes(of: entry.pointee.d_name) { raw in
            unsafe String(decoding: raw.prefix { $0 != 0 }, as: UTF8.self)
        }
        guard let number = Int32(name), identity(number) == wanted else { continue }
        count += 1
    }
    return count
}

/// What a descriptor is open on: an eventfd by its kernel id, anything else by device and inode.
private func identity(_ number: Int32) -> String? {
    var status = stat()
    guard unsafe fstat(number, &status) == 0 else { return nil }
    guard let file = unsafe fopen("/proc/self/fdinfo/\(number)", "r") else { return nil }
    defer { unsafe fclose(file) }
    var text = [UInt8](repeating: 0, count: 1024)
    let length = unsafe fread(&text, 1, text.count, file)
    let lines = String(decoding: text.prefix(length), as: UTF8.self).split(separator: "\n")
    let event = lines.first { $0.hasPrefix("eventfd-id:") } ?? ""
    return "\(status.st_dev) \(status.st_ino) \(event)"
}

/// Sends more descriptors with one message than our own receiver has room for.
func sendManyDescriptors(
    _ bytes: [UInt8],
    _ descriptor: FileDescriptor,
    count: Int,
    over: UnixSocket
)
    -> Int
{
    // struct cmsghdr: length, SOL_SOCKET, SCM_RIGHTS; then the numbers.
    var control = [Int32](repeating: descriptor.rawValue, count: 4 + count)
    control[0] = Int32(16 + 4 * count)
    control[1] = 0
    control[2] = 1
    control[3] = 1
    var bytes = bytes
    return unsafe bytes.withUnsafeMutableBytes { bytes in
        var part = unsafe iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
        return unsafe control.withUnsafeMutableBytes { control in
            unsafe withUnsafeMutablePointer(to: &part) { part in
                var message = unsafe msghdr()
                unsafe message.msg_iov = part
                unsafe message.msg_iovlen = 1
                unsafe message.msg_control = control.baseAddress
                unsafe message.msg_controllen = control.count
                return unsafe sendmsg(over.descriptor.rawValue, &message, 0)
            }
        }
    }
}

/// Bytes from hexadecimal digits; blanks separate.
func bytes(_ digits: String) -> [UInt8] {
    let joined = Array(digits.filter { !$0.isWhitespace })
    return stride(from: 0, to: joined.count - 1, by: 2).compactMap {
        UInt8(String(joined[$0...($0 + 1)]), radix: 16)
    }
}

/// A descriptor of an epoll set.
func epollDescriptor() throws -> FileDescriptor {
    let loop = try EventLoop()
    defer { withExtendedLifetime(loop) {} }
    for number in Int32(3)..<1024 {
        var target = [CChar](repeating: 0, count: 64)
        let length = unsafe readlink("/proc/self/fd/\(number)", &target, 63)
        guard length > 0 else { continue }
        let name = target.prefix(length).map { UInt8(bitPattern: $0) }
        guard String(decoding: name, as: UTF8.self) == "anon_inode:[eventpoll]" else { continue }
        let copy = dup(number)
        if copy >= 0 { return FileDescriptor(owning: copy) }
    }
    throw SystemError("find an epoll set", .noSuchFile)
}

/// A file of `size` bytes that anybody may cut short.
func unsealedFile(size: Int) throws -> FileDescriptor {
    var name = Array("/dev/shm/vhost-user-test-XXXXXX".utf8CString)
    let raw = unsafe mkstemp(&name)
    guard raw >= 0 else { throw SystemError("make a file", Errno(errno)) }
    unsafe unlink(name)
    _ = ftruncate(raw, size)
    return FileDescriptor(owning: raw)
}
