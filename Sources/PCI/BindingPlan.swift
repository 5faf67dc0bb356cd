/// One write to an attribute of the kernel.
public struct AttributeWrite: Hashable, Sendable, CustomStringConvertible {
    /// What is written.
    public let text: String
    /// Which file takes it.
    public let path: String

    init(_ text: String, to path: String) {
        self.text = text
        self.path = path
    }

    /// As `write "vfio-pci" to /sys/bus/pci/devices/0000:03:00.0/driver_override`.
    public var description: String {
        let visible = text == "\n" ? "\\n" : text
        return "write \"\(visible)\" to \(path)"
    }
}

/// What is to be done to bring a function to a driver: all writes are known before the first is made.
public struct BindingPlan: Hashable, Sendable {
    /// Which function.
    public let address: PCIAddress
    /// Its driver now.
    public let driverBefore: String?
    /// Its override now.
    public let overrideBefore: String?
    /// The driver that it shall have, `nil` for none.
    public let driverAfter: String?
    /// Vendor and device, for the journal.
    public let identity: String
    /// The writes, in order; empty when there is nothing to do (HI-J32).
    public let writes: [AttributeWrite]
    /// What the operator should know besides.
    public let notes: [String]
    /// After it the function is as it was before the first change.
    public let isRestoring: Bool

    /// The function is in the wanted state.
    public var isDone: Bool { writes.isEmpty }
}
