internal import HostSystem

// What is looked at before anything is written.
extension DriverBinding {
    /// The driver exists, and is a driver (HI-J9, HI-J10).
    func checkDriver(_ driver: String) throws(PCIError) {
        let directory = "/sys/bus/pci/drivers"
        if PCIAddress(driver) != nil {
            throw .refused(
                HostRefusal(
                    "bind/driver",
                    "\(driver) looks like a device address, not like a driver",
                    remedy: "vhost-pci device bind \(driver) --driver vfio-pci"
                )
            )
        }
        guard BindingJournal.isName(driver) else {
            throw .refused(HostRefusal("bind/driver", "'\(driver)' is no name of a driver"))
        }
        guard !tree.exists("\(directory)/\(driver)") else { return }
        guard Self.userDrivers.contains(driver) else {
            let all = tree.entriesIfAny(directory)
            let near = all.first { Self.plain($0) == Self.plain(driver) }
            throw .refused(
                HostRefusal(
                    "bind/driver",
                    "this kernel has no PCI driver \(driver) loaded",
                    remedy: near.map { "did you mean \($0)?" }
                        ?? "use vfio-pci or uio_pci_generic, or load the driver first"
                )
            )
        }
        throw .refused(KernelModules(tree).refusal(of: driver))
    }

    private static func plain(_ name: String) -> String {
        String(name.lowercased().map { $0 == "_" ? "-" : $0 })
    }

    /// Nobody else uses the function.
    func checkUse(of record: PCIBus.Record, force: Bool) throws(PCIError) {
        let uses = DeviceUse.list(of: record, in: tree)
        let processes = uses.filter { $0.kind == .process }
        // The kernel would make the writer wait until that process is done: no force helps.
        if !processes.isEmpty {
            throw .refused(
                HostRefusal(
                    "vfio/busy",
                    Self.text(record, processes),
                    remedy: "end that process first"
                )
            )
        }
        guard !force, !uses.isEmpty else { return }
        let functions = uses.filter { $0.kind == .virtualFunction }
        if !functions.isEmpty {
            throw .refused(
                HostRefusal(
                    "vfio/group",
                    Self.text(record, functions) + "; they vanish with their physical function",
                    remedy: "free them and write 0 to \(record.directory)/sriov_numvfs first"
                )
            )
        }
        throw .refused(
            HostRefusal(
                "bind/in-use",
                Self.text(record, uses),
                remedy: "end that use first; --force takes the device away all the same"
            )
        )
    }

    private static func text(_ record: PCIBus.Record, _ uses: [DeviceUse]) -> String {
        "\(record.address) (\(record.driver ?? "no driver")) is in use: "
            + uses.map(\.text).joined(separator: ", ")
    }

    /// Without a group vfio-pci refuses every function, unless the kernel may do without (HI-J6, HI-J7).
    func checkNoIOMMU(_ address: PCIAddress, isAllowed: Bool) throws(PCIError) {
        let file = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
        guard isAllowed else {
            let cause = IOMMUAbsence(in: tree)
            throw .refused(
                HostRefusal(
                    "iommu/off",
                    "\(address) is in no IOMMU group, so vfio-pci would refuse it: \(cause.text)",
                    remedy: cause.remedy
                )
            )
        }
        guard let value = tree.textIfAny(file) else {
            throw .refused(
                HostRefusal(
                    "iommu/noiommu-kernel",
                    "this kernel's VFIO cannot work without an IOMMU:"
                        + " there is no \(tree.place(of: file))",
                    remedy: "use uio_pci_generic"
                )
            )
        }
        guard value == "Y" || value == "1" else {
            throw .refused(
                HostRefusal(
                    "iommu/unsafe",
                    "VFIO without an IOMMU is switched off: \(tree.place(of: file)) is \(value)",
                    remedy: "echo Y > \(file) taints the kernel and needs CAP_SYS_RAWIO to use it"
                )
            )
        }
    }

    /// Members that keep the group from user space until they are moved too.
    func groupNotes(_ record: PCIBus.Record) -> [String] {
        guard let group = record.group else { return [] }
        let others = group.members.filter { $0.address != record.address && $0.isInTheWay }
        return others.map { member in
            "IOMMU group \(group.number) cannot be used before \(member.address)"
                + " (\(member.driver ?? "no driver")) is bound too:"
                + " vhost-pci device bind \(member.address) --driver vfio-pci"
        }
    }

    /// The kernel would choose the driver by itself, so an override is not needed.
    func isDefault(_ driver: String, _ record: PCIBus.Record) -> Bool {
        record.driverOverride == nil && !Self.userDrivers.contains(driver)
    }
}
