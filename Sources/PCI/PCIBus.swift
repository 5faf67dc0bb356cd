internal import CSystemShims
public import HostSystem

/// The PCI functions of a host: libpci lists and names them, sysfs says how they are used.
public enum PCIBus {
    /// Where the kernel lists them.
    public static let directory = "/sys/bus/pci/devices"

    /// Most functions that are looked at.
    public static let maximumCount = 65536

    /// All functions, in the order of their addresses; empty where the host has no PCI bus.
    public static func functions(in tree: HostTree = .live) throws(PCIError) -> [Record] {
        guard tree.exists(directory) else { return [] }
        return try list(tree).map { Record($0, in: tree) }.sorted { $0.address < $1.address }
    }

    /// Looks a function up; `nil` when there is none at that address.
    public static func identify(
        _ address: PCIAddress,
        in tree: HostTree = .live
    ) throws(PCIError) -> Record? {
        guard tree.exists("\(directory)/\(address)") else { return nil }
        return try list(tree).first { PCIAddress($0) == address }.map { Record($0, in: tree) }
    }

    /// Looks a function up; throws `pci/address` with the nearest ones when there is none (HI-J11).
    public static func find(
        _ address: PCIAddress,
        in tree: HostTree = .live
    ) throws(PCIError) -> Record {
        if let record = try identify(address, in: tree) { return record }
        let all = tree.entriesIfAny(directory).compactMap { PCIAddress($0) }
        guard !all.isEmpty else {
            throw .refused(
                HostRefusal(
                    "pci/address",
                    "there is no PCI function \(address): \(tree.place(of: directory)) lists none",
                    remedy: "a container or guest without a PCI bus has no functions to offer"
                )
            )
        }
        let near = nearest(to: address, in: all).map(\.description).joined(separator: ", ")
        throw .refused(
            HostRefusal(
                "pci/address",
                "there is no PCI function \(address); the nearest are \(near)",
                remedy: "`vhost-pci device list` shows them all"
            )
        )
    }

    /// Up to three functions whose addresses share most with a wanted one.
    static func nearest(to address: PCIAddress, in all: [PCIAddress]) -> [PCIAddress] {
        func distance(_ other: PCIAddress) -> Int {
            if other.domain != address.domain { return 65536 }
            if other.bus != address.bus { return 256 + abs(Int(other.bus) - Int(address.bus)) }
            return abs(Int(other.device) - Int(address.device))
        }
        let ordered = all.sorted { (distance($0), $0) < (distance($1), $1) }
        return Array(ordered.prefix(3))
    }

    private static func list(_ tree: HostTree) throws(PCIError) -> [shim_pci_function] {
        let path = tree.place(of: "/sys/bus/pci")
        // A function may be plugged in between counting and reading: two tries more.
        for _ in 0..<3 {
            let count = try unsafe scan(path, into: nil, 0)
            guard count <= maximumCount else {
                throw .notSupported("a bus of \(count) functions")
            }
            var functions = [shim_pci_function](repeating: shim_pci_function(), count: count)
            let filled = try unsafe functions.withUnsafeMutableBufferPointer {
                buffer throws(PCIError) in
                try unsafe scan(path, into: buffer.baseAddress, buffer.count)
            }
            if filled <= count { return Array(functions.prefix(filled)) }
        }
        throw .system(SystemError("list the PCI functions, which keep changing", .wouldBlock))
    }

    private static func scan(
        _ path: String,
        into functions: UnsafeMutablePointer<shim_pci_function>?,
        _ capacity: Int
    ) throws(PCIError) -> Int {
        do {
            return Int(
                try checked(
                    unsafe shim_pci_list(path, functions, Int32(clamping: capacity)),
                    "list the PCI functions below \(path)"
                )
            )
        } catch { throw .system(error) }
    }
}

extension PCIAddress {
    init(_ raw: shim_pci_function) {
        self.init(domain: raw.domain, bus: raw.bus, device: raw.device, function: raw.function)
    }
}
