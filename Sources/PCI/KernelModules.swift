public import HostSystem

/// Which drivers the running kernel could load.
public struct KernelModules {
    private let tree: HostTree

    /// Looks at a host.
    public init(_ tree: HostTree) {
        self.tree = tree
    }

    /// The kernel's release, `nil` when it is not told.
    public var release: String? { tree.textIfAny("/proc/sys/kernel/osrelease") }

    /// A module can be loaded or is built in; `nil` when the lists cannot be read.
    public func has(_ name: String) -> Bool? {
        guard let release else { return nil }
        let directory = "/lib/modules/\(release)"
        let lists = ["modules.dep", "modules.builtin"].compactMap {
            tree.textIfAny("\(directory)/\($0)")
        }
        guard !lists.isEmpty else { return nil }
        let wanted = Self.plain(name)
        return lists.contains { list in
            list.split(separator: "\n").contains { line in
                let path = line.prefix { $0 != ":" }
                let file = path.split(separator: "/").last?.prefix { $0 != "." } ?? ""
                return Self.plain(file) == wanted
            }
        }
    }

    // The kernel takes both for the same.
    private static func plain(_ name: some StringProtocol) -> String {
        String(name.map { $0 == "_" ? "-" : $0 })
    }

    /// Why a driver that is not loaded is not there, and what to do (HI-J9).
    public func refusal(of driver: String) -> HostRefusal {
        let id = driver.hasPrefix("vfio") ? "vfio/module" : "uio/module"
        if has(driver) == false {
            return HostRefusal(
                id,
                "the running kernel \(release ?? "") has no module \(driver)",
                remedy: "boot a kernel that has it"
            )
        }
        return HostRefusal(
            id,
            "the driver \(driver) is not loaded: there is no"
                + " \(tree.place(of: "/sys/bus/pci/drivers/\(driver)"))",
            remedy: "modprobe \(driver)"
        )
    }
}
