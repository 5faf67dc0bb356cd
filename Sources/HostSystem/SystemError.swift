internal import Glibc

/// A kernel error number.
public struct Errno: Error, Hashable, Sendable, CustomStringConvertible {
    /// The positive number from `errno.h`.
    public let rawValue: Int32

    /// Wraps a positive error number.
    public init(_ rawValue: Int32) {
        self.rawValue = rawValue
    }

    /// The number with the C library's sentence for it.
    public var description: String {
        guard let text = unsafe strerror(rawValue) else { return "errno \(rawValue)" }
        return unsafe String(cString: text) + " (errno \(rawValue))"
    }

    /// Operation not permitted.
    public static let notPermitted = Errno(EPERM)
    /// No such file.
    public static let noSuchFile = Errno(ENOENT)
    /// The call would block: nothing to read, or no room to write.
    public static let wouldBlock = Errno(EAGAIN)
    /// Permission denied.
    public static let accessDenied = Errno(EACCES)
    /// File exists.
    public static let exists = Errno(EEXIST)
    /// Invalid argument.
    public static let invalidArgument = Errno(EINVAL)
    /// The process has no free descriptor.
    public static let tooManyDescriptors = Errno(EMFILE)
    /// Nobody listens at the address.
    public static let connectionRefused = Errno(ECONNREFUSED)
    /// The address is in use.
    public static let addressInUse = Errno(EADDRINUSE)
    /// The other end is gone.
    public static let brokenPipe = Errno(EPIPE)
    /// The other end reset the connection.
    public static let connectionReset = Errno(ECONNRESET)
    /// A name is longer than its field.
    public static let nameTooLong = Errno(ENAMETOOLONG)
    /// No memory.
    public static let noMemory = Errno(ENOMEM)
    /// The device or file is in use.
    public static let busy = Errno(EBUSY)
    /// No such device.
    public static let noDevice = Errno(ENODEV)
    /// Input or output failed.
    public static let ioFailure = Errno(EIO)
    /// The file has no such request.
    public static let notATerminal = Errno(ENOTTY)
    /// An address that the kernel cannot use.
    public static let badAddress = Errno(EFAULT)
    /// No space.
    public static let noSpace = Errno(ENOSPC)
}

/// A system call that the kernel refused: what was tried, on what, and why.
public struct SystemError: Error, Sendable, CustomStringConvertible {
    /// What was tried, with its object: "map 4096 bytes of region 2".
    public let operation: String
    /// Why it failed.
    public let errno: Errno

    /// Names a failed operation.
    public init(_ operation: String, _ errno: Errno) {
        self.operation = operation
        self.errno = errno
    }

    /// One line for people.
    public var description: String { "\(operation): \(errno)" }
}

/// Turns a shim's "value or -errno" into a value or a thrown error.
///
/// EBADF and EFAULT can only be a mistake of ours and trap.
@discardableResult
public func checked<Value: FixedWidthInteger & SignedInteger>(
    _ value: Value,
    _ operation: @autoclosure () -> String
) throws(SystemError) -> Value {
    guard value < 0 else { return value }
    let number = Int32(truncatingIfNeeded: -value)
    precondition(
        number != EBADF && number != EFAULT,
        "\(operation()): errno \(number) is a defect of this program"
    )
    throw SystemError(operation(), Errno(number))
}
