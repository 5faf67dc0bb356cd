/// The mask that CAP_GET returns: what the virtual-device dialect of an admin queue can do.
///
/// Bit 1 is the proposal's (Wang RFC 2021); bits 32 and up are this project's extension.
public struct AdminCapabilities: OptionSet, Hashable, Sendable, CustomStringConvertible {
    /// Bit n is capability n.
    public let rawValue: UInt64

    /// Takes the mask as it is.
    public init(rawValue: UInt64) {
        self.rawValue = rawValue
    }

    /// Virtual devices are created, configured and destroyed through the queue.
    public static let virtualDevices = AdminCapabilities(rawValue: 1 << 1)
    /// Failed commands carry an error record.
    public static let errorRecord = AdminCapabilities(rawValue: 1 << 32)
    /// LIST and INFO; there may be pre-made virtual devices.
    public static let staticDevices = AdminCapabilities(rawValue: 1 << 33)
    /// Class CONFIG.
    public static let configuration = AdminCapabilities(rawValue: 1 << 34)
    /// Class IRQ.
    public static let interrupts = AdminCapabilities(rawValue: 1 << 35)
    /// Class VQ.
    public static let virtqueues = AdminCapabilities(rawValue: 1 << 36)
    /// Class MMU.
    public static let deviceMMU = AdminCapabilities(rawValue: 1 << 37)
    /// Class EVENT and the event queue.
    public static let events = AdminCapabilities(rawValue: 1 << 38)

    /// Everything that a management device of this project serves.
    public static let all: AdminCapabilities = [
        .virtualDevices, .errorRecord, .staticDevices, .configuration, .interrupts, .virtqueues,
        .deviceMMU, .events,
    ]

    /// The proposal names capability "1" without saying whether that is a bit number or a mask. We
    /// read a bit number; a device that means the mask offers this value.
    public static let virtualDevicesAsMask = AdminCapabilities(rawValue: 1)

    /// Names of the set bits, numbers for those without a name.
    public var description: String {
        let names: [(AdminCapabilities, String)] = [
            (.virtualDevices, "VDEV"), (.errorRecord, "ERROR"), (.staticDevices, "STATIC"),
            (.configuration, "CONFIG"), (.interrupts, "IRQ"), (.virtqueues, "VQ"),
            (.deviceMMU, "MMU"), (.events, "EVENT"),
        ]
        var words = names.filter { contains($0.0) }.map(\.1)
        let rest = subtracting(.all)
        words += (0..<64).filter { rest.rawValue & (1 << UInt64($0)) != 0 }.map { "bit \($0)" }
        return words.isEmpty ? "none" : words.joined(separator: "|")
    }
}
