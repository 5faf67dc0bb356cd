public import GuestMemory
public import HostSystem

/// How a polling thread tells the other side that a ring moved: a value, so that no call through a
/// protocol stands on the packet path.
@frozen
@safe
public struct Doorbell: @unchecked Sendable, BitwiseCopyable {
    // Safety: `register` stays mapped and `descriptor` stays open while the transport that gave
    // this value lives; the engine drops its ports before the transport goes.
    @usableFromInline let register: UnsafeMutableRawPointer?
    @usableFromInline let descriptor: Int32
    @usableFromInline let value: UInt16

    /// A 16-bit store of `value` to a device register.
    @unsafe
    public init(register: UnsafeMutableRawPointer, value: UInt16) {
        unsafe self.register = unsafe register
        descriptor = -1
        self.value = value
    }

    /// A write to an eventfd.
    public init(eventDescriptor: Int32) {
        unsafe register = nil
        descriptor = eventDescriptor
        value = 0
    }

    /// Rings nobody.
    public static let none = Doorbell(eventDescriptor: -1)

    /// True when there is nobody to ring.
    public var isNone: Bool {
        @_noLocks get { unsafe register == nil && descriptor < 0 }
    }

    /// Rings once; nobody counts as full. Never waits, and must not be rung again once `blocked`
    /// came back (HI-D25).
    @_noLocks
    @inlinable
    @inline(__always)
    @discardableResult
    public func ring() -> SignalOutcome {
        if let register = unsafe register {
            unsafe SharedCell.storeRegister16(register, value)
            return .signalled
        }
        guard descriptor >= 0 else { return .full }
        return unsafe SharedCell.signal(descriptor)
    }
}
