internal import CSystemShims
public import HostSystem

/// Something that would break if a function were taken from its driver (HI-J1, HI-J2, HI-J5).
public struct DeviceUse: Hashable, Sendable {
    /// What kind of use it is; decides whether it can be overridden.
    public enum Kind: Hashable, Sendable {
        /// An interface with an address or a route, or one that belongs to another.
        case network
        /// A disk with a file system, swap, or something that stands on it.
        case storage
        /// A virtual function on a host driver.
        case virtualFunction
        /// Functions behind a bridge.
        case bridge
        /// A process that drives the function from user space: the kernel waits for it.
        case process
    }

    /// What kind of use it is.
    public let kind: Kind
    /// Interface, disk, function or process, and its use, as `eth0 has the address 10.0.0.2`.
    public let text: String

    /// All uses that can be seen.
    public static func list(of record: PCIBus.Record, in tree: HostTree) -> [DeviceUse] {
        record.interfaces.flatMap { network($0, tree) } + elsewhere(record, tree)
            + record.disks.flatMap { storage($0, tree) }
            + virtualFunctions(record, tree) + bridge(record, tree) + processes(record, tree)
    }

    // MARK: Networks

    private static func network(_ interface: String, _ tree: HostTree) -> [DeviceUse] {
        var texts: [String] = []
        let directory = "/sys/class/net/\(interface)"
        if let master = tree.linkName("\(directory)/master") {
            let place = "/sys/class/net/\(master)"
            let kind =
                tree.exists("\(place)/bonding")
                ? "bond" : tree.exists("\(place)/bridge") ? "bridge" : "master interface"
            texts.append("\(interface) belongs to the \(kind) \(master)")
        }
        let master = tree.linkName("\(directory)/master")
        for upper in tree.entriesIfAny(directory) where upper.hasPrefix("upper_") {
            let name = String(upper.dropFirst(6))
            if name != master { texts.append("\(interface) carries \(name)") }
        }
        texts += addresses(interface, tree).map { "\(interface) has the address \($0)" }
        texts += routes(interface, tree).map { "\(interface) has \($0)" }
        return texts.map { DeviceUse(kind: .network, text: $0) }
    }

    /// A driver of network devices whose interface does not show has it in another network
    /// namespace, where nobody can see from here what it is used for.
    private static func elsewhere(_ record: PCIBus.Record, _ tree: HostTree) -> [DeviceUse] {
        let isEthernet = record.identity.classCode >> 8 == 0x0200
        guard isEthernet, record.interfaces.isEmpty, var driver = record.driver,
            !["vfio", "uio", "stub"].contains(where: driver.contains)
        else { return [] }
        if record.isVirtio {
            let name = record.virtioDevice?.name ?? "none"
            guard let own = tree.linkName("\(record.directory)/\(name)/driver") else { return [] }
            driver = own
        }
        let text = "\(driver) has its interface in another network namespace"
        return [DeviceUse(kind: .network, text: text)]
    }

    private static func addresses(_ interface: String, _ tree: HostTree) -> [String] {
        var texts: [String] = []
        if tree.isLive {
            var raw = [UInt32](repeating: 0, count: 64)
            let count = unsafe raw.withUnsafeMutableBufferPointer { buffer in
                unsafe shim_interface_addresses(interface, buffer.baseAddress, 64)
            }
            texts += raw.prefix(Int(max(0, min(count, 64)))).map { value in
                (0..<4).map { "\(value >> (8 * UInt32($0)) & 0xff)" }.joined(separator: ".")
            }
        }
        // address, index, prefix length, scope, flags, name; every interface has a link-local one.
        for line in lines("/proc/net/if_inet6", tree) {
            guard line.count >= 6, line[5] == interface, line[3] != "20" else { continue }
            let digits = Array(line[0])
            let words = stride(from: 0, to: digits.count, by: 4).map {
                String(digits[$0..<min($0 + 4, digits.count)])
            }
            texts.append(words.joined(separator: ":"))
        }
        return texts
    }

    private static func routes(_ interface: String, _ tree: HostTree) -> [String] {
        var texts: [String] = []
        for line in lines("/proc/net/route", tree).dropFirst() {
            guard line.count >= 8, line[0] == interface else { continue }
            texts.append(line[1] == "00000000" ? "the default route" : "a route")
        }
        for line in lines("/proc/net/ipv6_route", tree) {
            // Link-local and multicast routes come with every interface that is up.
            guard line.count >= 10, line[9] == interface, !line[0].hasPrefix("fe8"),
                !line[0].hasPrefix("ff")
            else { continue }
            let isDefault = line[0].allSatisfy { $0 == "0" } && line[1] == "00"
            texts.append(isDefault ? "the default route (IPv6)" : "a route (IPv6)")
        }
        return Set(texts).sorted()
    }

    // MARK: Disks

    /// Containers mount a disk many times.
    private static let longestList = 8

    private static func storage(_ disk: String, _ tree: HostTree) -> [DeviceUse] {
        var texts: [String] = []
        let directory = "/sys/class/block/\(disk)"
        let number = tree.textIfAny("\(directory)/dev") ?? "none"
        for line in lines("/proc/self/mountinfo", tree) {
            let source = line.firstIndex(of: "-").map { line.dropFirst($0 + 2).first } ?? nil
            guard line.count > 4, line[2] == number || source == "/dev/\(disk)" else { continue }
            texts.append("\(disk) is mounted at \(line[4])")
        }
        for line in lines("/proc/swaps", tree) where line.first == "/dev/\(disk)" {
            texts.append("\(disk) is swap space")
        }
        for holder in tree.entriesIfAny("\(directory)/holders") {
            let name = tree.textIfAny("/sys/class/block/\(holder)/dm/name")
            let kind = holder.hasPrefix("md") ? "RAID" : "LVM or another mapping"
            texts.append("\(disk) is part of \(name ?? holder) (\(kind))")
        }
        if texts.isEmpty, tree.isClaimed(disk: "/dev/\(disk)") {
            texts.append("\(disk) is claimed by a program, or by another mount namespace")
        }
        if texts.count > longestList {
            let rest = texts.count - longestList
            texts = texts.prefix(longestList) + ["\(disk) has \(rest) more uses"]
        }
        return texts.map { DeviceUse(kind: .storage, text: $0) }
    }

    // MARK: Functions

    private static func virtualFunctions(
        _ record: PCIBus.Record,
        _ tree: HostTree
    ) -> [DeviceUse] {
        record.virtualFunctions.compactMap { function in
            guard let driver = tree.linkName("\(PCIBus.directory)/\(function)/driver") else {
                return nil
            }
            return DeviceUse(
                kind: .virtualFunction,
                text: "virtual function \(function) is bound to \(driver)"
            )
        }
    }

    private static func bridge(_ record: PCIBus.Record, _ tree: HostTree) -> [DeviceUse] {
        let children = tree.entriesIfAny(record.directory).compactMap { PCIAddress($0) }
        guard !children.isEmpty else { return [] }
        let names = children.map(\.description).joined(separator: ", ")
        return [DeviceUse(kind: .bridge, text: "it is the bridge to \(names)")]
    }

    // MARK: Processes

    /// Who has the node open through which user space drives a function. Without privilege only
    /// one's own processes can be seen.
    private static func processes(_ record: PCIBus.Record, _ tree: HostTree) -> [DeviceUse] {
        var nodes: [String] = []
        if record.driver == "vfio-pci" {
            nodes +=
                record.group.map { ["/dev/vfio/\($0.number)", "/dev/vfio/noiommu-\($0.number)"] }
                ?? []
            nodes += tree.entriesIfAny("\(record.directory)/vfio-dev")
                .map { "/dev/vfio/devices/\($0)" }
        }
        nodes += tree.entriesIfAny("\(record.directory)/uio").map { "/dev/\($0)" }
        guard !nodes.isEmpty else { return [] }
        var uses: [DeviceUse] = []
        for process in tree.entriesIfAny("/proc") where process.allSatisfy(\.isNumber) {
            for file in tree.entriesIfAny("/proc/\(process)/fd") {
                guard let target = try? tree.link("/proc/\(process)/fd/\(file)"),
                    nodes.contains(target)
                else { continue }
                let name = tree.textIfAny("/proc/\(process)/comm") ?? "?"
                uses.append(
                    DeviceUse(
                        kind: .process,
                        text: "process \(process) (\(name)) has \(target) open"
                    )
                )
                break
            }
        }
        return uses
    }

    private static func lines(_ path: String, _ tree: HostTree) -> [[Substring]] {
        (tree.textIfAny(path) ?? "").split(separator: "\n").map { line in
            line.split { $0 == " " || $0 == "\t" }
        }
    }
}
