public import HostSystem

/// Takes functions from one kernel driver to another by `driver_override` and `drivers_probe`, which
/// affects no other function and leaves no id behind in a driver.
///
/// Every change is planned first, kept in the journal, carried out, and believed only when the
/// function's `driver` link says so: a write to `drivers_probe` succeeds also where the driver refused
/// the function. On failure the driver and the override from before are put back.
public struct DriverBinding {
    /// Drivers that hand a function to user space.
    public static let userDrivers = ["vfio-pci", "uio_pci_generic"]

    let tree: HostTree
    let writer: any AttributeWriter
    let journal: BindingJournal

    /// Works on a host; `writer` carries the writes out, the kernel unless told otherwise.
    public init(_ tree: HostTree, writer: (any AttributeWriter)? = nil) {
        self.tree = tree
        self.writer = writer ?? KernelAttributes(tree)
        journal = BindingJournal(tree)
    }

    /// Plans to bind a function to a driver.
    ///
    /// `force` overrides uses that others have of it (HI-J1, HI-J2) and a missing IOMMU, never a
    /// process that drives it. Throws `bind/driver`, `vfio/module`, `iommu/off`, `vfio/group` or
    /// `bind/in-use`; nothing was changed then.
    public func bindPlan(
        _ address: PCIAddress,
        to driver: String,
        force: Bool = false,
        withoutIOMMU: Bool = false
    ) throws(PCIError) -> BindingPlan {
        try checkDriver(driver)
        let record = try PCIBus.find(address, in: tree)
        var notes: [String] = []
        if driver == "vfio-pci" {
            if record.group == nil, !force { try checkNoIOMMU(address, isAllowed: withoutIOMMU) }
            notes += groupNotes(record)
        } else if driver == "uio_pci_generic" {
            notes.append(
                record.group?.isTranslated == true
                    ? "the IOMMU translates this device's accesses, which UIO cannot work with:"
                        + " use vfio-pci, or boot with iommu=pt"
                    : "no IOMMU keeps this device from overwriting any memory of the machine"
            )
        }
        if record.driver == driver, record.driverOverride == driver || isDefault(driver, record) {
            return plan(record, to: driver, [], notes)
        }
        var writes = [AttributeWrite(driver, to: "\(record.directory)/driver_override")]
        if record.driver != driver {
            try checkUse(of: record, force: force)
            if record.driver != nil {
                writes.append(AttributeWrite("\(address)", to: "\(record.directory)/driver/unbind"))
            }
            writes.append(AttributeWrite("\(address)", to: Self.probe))
        }
        return plan(record, to: driver, writes, notes)
    }

    /// Plans to leave a function without a driver.
    public func unbindPlan(
        _ address: PCIAddress,
        force: Bool = false
    ) throws(PCIError) -> BindingPlan {
        let record = try PCIBus.find(address, in: tree)
        guard record.driver != nil else { return plan(record, to: nil, [], []) }
        try checkUse(of: record, force: force)
        let unbind = AttributeWrite("\(address)", to: "\(record.directory)/driver/unbind")
        return plan(record, to: nil, [unbind], [])
    }

    /// Plans to put back what was there before the first change; without a record of one, the
    /// override is cleared and the kernel chooses.
    public func restorePlan(
        _ address: PCIAddress,
        force: Bool = false
    ) throws(PCIError) -> BindingPlan {
        let record = try PCIBus.find(address, in: tree)
        var kept = try journal.entry(address)
        var notes: [String] = []
        if let entry = kept, entry.identity != Self.identity(record) {
            notes.append("the record of \(entry.identity) was made for another device: not used")
            kept = nil
        }
        let override = kept?.override
        let isUserDriver = Self.userDrivers.contains(record.driver ?? "")
        let wanted: String?
        if let kept {
            wanted = kept.driver
        } else {
            wanted = isUserDriver || record.driver == nil ? nil : record.driver
        }
        var writes: [AttributeWrite] = []
        if record.driverOverride != override {
            writes.append(
                AttributeWrite(override ?? "\n", to: "\(record.directory)/driver_override")
            )
        }
        let mustLeave = kept == nil ? isUserDriver && !writes.isEmpty : record.driver != wanted
        if record.driver != nil, mustLeave {
            try checkUse(of: record, force: force)
            writes.append(AttributeWrite("\(address)", to: "\(record.directory)/driver/unbind"))
        }
        let mustProbe =
            kept == nil
            ? mustLeave || record.driver == nil
            : wanted != nil && record.driver != wanted
        if mustProbe { writes.append(AttributeWrite("\(address)", to: Self.probe)) }
        if kept == nil, writes.isEmpty {
            notes.append("no change of this program is on record for \(address)")
        }
        return plan(record, to: wanted, writes, notes, isRestoring: true)
    }

    /// Carries a plan out and returns the driver that the function has then.
    ///
    /// Throws `bind/failed` when the function does not end where the plan says, and tells whether
    /// what was before is back (HI-J12).
    @discardableResult
    public func carryOut(_ plan: BindingPlan) throws(PCIError) -> String? {
        guard !plan.isDone else {
            if plan.isRestoring { try journal.forget(plan.address) }
            return plan.driverBefore
        }
        let isFirst = try keep(plan)
        do {
            for write in plan.writes { try writer.write(write.text, to: write.path) }
        } catch {
            try giveUp(plan, "\(error)", isFirst: isFirst)
        }
        var driver = currentDriver(plan.address)
        if plan.isRestoring, let wanted = plan.driverAfter, driver == nil {
            // The probe leaves the choice to the kernel; ask the driver itself.
            try? writer.write("\(plan.address)", to: "/sys/bus/pci/drivers/\(wanted)/bind")
            driver = currentDriver(plan.address)
        }
        let isFree = plan.isRestoring && plan.driverAfter == nil
        guard isFree || driver == plan.driverAfter else {
            let found = driver.map { "its driver is \($0)" } ?? "it has no driver"
            try giveUp(
                plan,
                "every write succeeded, but \(found) and not"
                    + " \(plan.driverAfter ?? "none"); the kernel log says why",
                isFirst: isFirst
            )
        }
        if plan.isRestoring { try journal.forget(plan.address) }
        return driver
    }

    /// The driver that the function has now.
    public func currentDriver(_ address: PCIAddress) -> String? {
        tree.linkName("\(PCIBus.directory)/\(address)/driver")
    }
}

// What happens around the writes.
extension DriverBinding {
    static let probe = "/sys/bus/pci/drivers_probe"

    static func identity(_ record: PCIBus.Record) -> String {
        String(record.identity.vendor, radix: 16) + ":" + String(record.identity.device, radix: 16)
    }

    private func plan(
        _ record: PCIBus.Record,
        to driver: String?,
        _ writes: [AttributeWrite],
        _ notes: [String],
        isRestoring: Bool = false
    ) -> BindingPlan {
        BindingPlan(
            address: record.address,
            driverBefore: record.driver,
            overrideBefore: record.driverOverride,
            driverAfter: driver,
            identity: Self.identity(record),
            writes: writes,
            notes: notes,
            isRestoring: isRestoring
        )
    }

    /// Writes the journal unless it holds an earlier state of the same device; true when it did.
    private func keep(_ plan: BindingPlan) throws(PCIError) -> Bool {
        // What is being put back is not what was there before: a record of it would turn the next
        // restore around.
        if plan.isRestoring { return false }
        if let kept = try journal.entry(plan.address), kept.identity == plan.identity {
            return false
        }
        let entry = BindingJournal.Entry(
            identity: plan.identity,
            driver: plan.driverBefore,
            override: plan.overrideBefore
        )
        try journal.record(entry, for: plan.address)
        return true
    }

    /// Puts back what was there before the plan and throws.
    private func giveUp(
        _ plan: BindingPlan,
        _ why: String,
        isFirst: Bool
    ) throws(PCIError) -> Never {
        let address = plan.address
        let directory = "\(PCIBus.directory)/\(address)"
        try? writer.write(plan.overrideBefore ?? "\n", to: "\(directory)/driver_override")
        if let driver = currentDriver(address), driver != plan.driverBefore {
            try? writer.write("\(address)", to: "\(directory)/driver/unbind")
        }
        if let driver = plan.driverBefore, currentDriver(address) == nil {
            try? writer.write("\(address)", to: Self.probe)
            if currentDriver(address) == nil {
                try? writer.write("\(address)", to: "/sys/bus/pci/drivers/\(driver)/bind")
            }
        }
        let record = try PCIBus.find(address, in: tree)
        let isBack =
            record.driver == plan.driverBefore && record.driverOverride == plan.overrideBefore
        let before = plan.driverBefore ?? "no driver"
        if isBack, isFirst { try journal.forget(address) }
        throw .refused(
            HostRefusal(
                "bind/failed",
                "\(address) could not be brought to \(plan.driverAfter ?? "no driver"): \(why); "
                    + (isBack
                        ? "\(before) and the override are as before"
                        : "it has \(record.driver ?? "no driver") instead of \(before) now"),
                remedy: isBack ? "" : "vhost-pci device restore \(address)"
            )
        )
    }
}
