internal import CSystemShims
internal import Glibc

extension FileDescriptor {
    /// Opens an existing file or device node, for reading or for reading and writing.
    public static func open(_ path: String, writable: Bool) throws(SystemError) -> FileDescriptor {
        FileDescriptor(
            owning: try checked(unsafe shim_open_file(path, writable ? 1 : 0), "open \(path)")
        )
    }

    /// What the kernel calls the open file, for messages: whoever made it chose the name, so only
    /// what can be printed is kept of it.
    public var name: String {
        let link = "/proc/self/fd/\(rawValue)"
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: 128) { buffer, count in
            count = unsafe buffer.withMemoryRebound(to: CChar.self) { target in
                guard let start = target.baseAddress else { return 0 }
                return max(0, unsafe readlink(link, start, target.count))
            }
        }
        let printable = bytes.filter { (0x21...0x7e).contains($0) }
        return printable.isEmpty
            ? "descriptor \(rawValue)" : String(decoding: printable, as: UTF8.self)
    }

    /// Locks the open file for this process alone, against others who do the same; `wouldBlock` when
    /// one of them has it. The lock goes with the last descriptor.
    public func lock() throws(SystemError) {
        try checked(shim_lock_file(rawValue), "lock descriptor \(rawValue)")
    }

    /// Reads what is there now; empty when there is nothing. For a file of our own that is not shared:
    /// it does not wait from now on. Every error number is thrown, as in `read(at:count:)`.
    public func readNow(count: Int) throws(SystemError) -> [UInt8] {
        try checked(shim_set_nonblocking(rawValue, 1), "keep descriptor \(rawValue) from waiting")
        var status: Int64 = 0
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: max(1, count)) {
            buffer,
            initialized in
            guard let start = buffer.baseAddress else { return }
            status = unsafe shim_read(rawValue, start, max(1, count))
            initialized = Int(max(0, status))
        }
        guard status < 0 else { return bytes }
        let number = Errno(Int32(truncatingIfNeeded: -status))
        guard number == .wouldBlock else {
            throw SystemError("read descriptor \(rawValue)", number)
        }
        return []
    }

    /// Reads at most `count` bytes at `offset` (pread); fewer at the end of the file.
    ///
    /// Every error number is thrown: the file may be a device of somebody else's making.
    public func read(at offset: UInt64, count: Int) throws(SystemError) -> [UInt8] {
        var status: Int64 = 0
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: max(0, count)) {
            buffer,
            initialized in
            status = unsafe shim_read_at(rawValue, buffer.baseAddress, max(0, count), offset)
            initialized = Int(max(0, status))
        }
        guard status >= 0 else {
            throw SystemError(
                "read \(count) bytes at \(offset) of descriptor \(rawValue)",
                Errno(Int32(truncatingIfNeeded: -status))
            )
        }
        return bytes
    }

    /// Writes bytes at `offset` (pwrite) and returns how many were taken.
    @discardableResult
    public func write(at offset: UInt64, _ bytes: [UInt8]) throws(SystemError) -> Int {
        let status = unsafe bytes.withUnsafeBytes { buffer in
            unsafe shim_write_at(rawValue, buffer.baseAddress, buffer.count, offset)
        }
        guard status >= 0 else {
            throw SystemError(
                "write \(bytes.count) bytes at \(offset) of descriptor \(rawValue)",
                Errno(Int32(truncatingIfNeeded: -status))
            )
        }
        return Int(status)
    }
}
