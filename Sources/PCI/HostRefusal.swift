/// Why the host, or whoever set it up, stands in the way of a device: what was found, where, and
/// what to do about it. Nothing was changed when this is thrown.
public struct HostRefusal: Error, Sendable, Hashable, CustomStringConvertible {
    /// Error id, as `vfio/group`: what tests, scripts and docs/requirements name it by.
    public let id: String
    /// What was found, with its place: file, owner, process, driver.
    public let detail: String
    /// One sentence that says what to do; empty when there is nothing.
    public let remedy: String

    /// Names a refusal.
    public init(_ id: String, _ detail: String, remedy: String = "") {
        self.id = id
        self.detail = detail
        self.remedy = remedy
    }

    /// One line for people.
    public var description: String {
        remedy.isEmpty ? "\(id): \(detail)" : "\(id): \(detail); \(remedy)"
    }
}

extension HostRefusal {
    /// A BAR that is to show a peer's memory, and that the machine gave no address.
    public static func noAddress(bar: Int) -> HostRefusal {
        HostRefusal(
            "pci/bar-address",
            "BAR \(bar), which is to show the peer's memory, has no address, or is not there",
            remedy: "if the machine found no room for it, give its bridge more for 64-bit windows"
                + " (QEMU: pcie-root-port,pref64-reserve=SIZE), and plug the device in anew"
        )
    }
}
