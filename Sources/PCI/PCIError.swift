public import HostSystem

/// What can go wrong between a driver and a PCI function.
public enum PCIError: Error, Sendable, CustomStringConvertible {
    /// The kernel refused.
    case system(SystemError)
    /// The host stands in the way.
    case refused(HostRefusal)
    /// A register or window access outside its BAR, or in a BAR that is not there.
    case range(bar: Int, offset: UInt64, size: UInt64)
    /// A capability that the driver needs is absent or unusable (HI-H6).
    case capability(String)
    /// The capability list does not end (HI-H5).
    case capabilityLoop
    /// A queue's notify address is outside the notify structure (HI-H8).
    case notifyRange(queue: Int)
    /// Admin queues that begin among the ordinary ones or end past the last queue number (HI-H9).
    case adminRange(index: Int, count: Int)
    /// A vector beyond the MSI-X table.
    case vector(Int)
    /// No address or no memory for an arena.
    case noRoom(String)
    /// The function cannot do it.
    case notSupported(String)
    /// Every register reads all ones: the function is gone (HI-A53).
    case deviceGone

    /// One line: error id first.
    public var description: String {
        switch self {
        case .system(let error): "\(error)"
        case .refused(let refusal): "\(refusal)"
        case .range(let bar, let offset, let size):
            "region/range: \(size) bytes at \(offset) of BAR \(bar) are outside it"
        case .capability(let what): "pci/cap: \(what)"
        case .capabilityLoop: "pci/cap-loop: the capability list does not end"
        case .notifyRange(let queue):
            "pci/notify-range: the notify address of queue \(queue) is outside its structure"
        case .adminRange(let index, let count):
            "pci/admin-range: \(count) admin queues from number \(index) are not possible"
        case .vector(let vector): "pci/vector: there is no MSI-X vector \(vector)"
        case .noRoom(let what): "limit/memory: no room for \(what)"
        case .notSupported(let what): "not supported: \(what)"
        case .deviceGone: "pci/device-gone: every register reads all ones"
        }
    }
}

/// Does what the kernel may refuse, and presents its refusal as the function's.
public func presenting<Value>(
    _ call: () throws(SystemError) -> Value
) throws(PCIError) -> Value {
    do throws(SystemError) { return try call() } catch { throw .system(error) }
}

/// Width of a configuration or register access.
public enum AccessWidth: Int, Sendable, CaseIterable {
    /// 8 bits.
    case byte = 1
    /// 16 bits.
    case word = 2
    /// 32 bits.
    case long = 4
}
