public import GuestMemory

/// Why a queue broke, with what was found: kept for `show` and for the device's fault report.
public struct QueueFault: Error, Sendable, Equatable {
    /// The rule that was broken.
    public let error: QueueError
    /// Head of the chain concerned; 0 when there is none.
    public let head: UInt16
    /// The offending value: an address for memory faults, else the index or length.
    public let value: UInt64
    /// What was tried at the address; empty when the value is no address.
    public let access: MemoryAccess

    /// Describes a fault.
    @_noLocks
    public init(
        _ error: QueueError,
        head: UInt16 = 0,
        value: UInt64 = 0,
        access: MemoryAccess = MemoryAccess(rawValue: 0)
    ) {
        self.error = error
        self.head = head
        self.value = value
        self.access = access
    }

    /// The address that could not be reached, when that was the cause.
    public var address: UInt64? {
        access.isEmpty ? nil : value
    }
}
