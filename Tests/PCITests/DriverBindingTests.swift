import HostSupport
import HostSystem
import PCI
import Testing

@Suite struct DriverBindingTests {
    private let address = "0000:03:00.0"
    private var device: String { FixtureTree.device(address) }

    /// A virtio-net function on its kernel driver, in a group, with both user drivers loaded.
    private func machine(group: Int? = 3) throws -> (FixtureTree, FakeKernel, DriverBinding) {
        let host = try FixtureTree()
        try host.function(address, driver: "virtio-pci", group: group)
        for driver in ["vfio-pci", "uio_pci_generic"] { try host.driver(driver) }
        let kernel = FakeKernel(host)
        kernel.defaultDrivers = [address: "virtio-pci"]
        return (host, kernel, DriverBinding(host.tree, writer: kernel))
    }

    private var pci: PCIAddress {
        get throws { try #require(PCIAddress(address)) }
    }

    private func refusal(_ work: () throws -> Void) throws -> HostRefusal {
        do { try work() } catch PCIError.refused(let refusal) { return refusal }
        throw SystemError("nothing was refused", .invalidArgument)
    }

    @Test func `a plan has every write, and nothing is written before it is carried out`() throws {
        let (host, kernel, binding) = try machine()
        let plan = try binding.bindPlan(try pci, to: "vfio-pci")
        #expect(
            plan.writes.map(\.description) == [
                "write \"vfio-pci\" to \(device)/driver_override",
                "write \"\(address)\" to \(device)/driver/unbind",
                "write \"\(address)\" to /sys/bus/pci/drivers_probe",
            ]
        )
        #expect(kernel.log.isEmpty && !host.tree.exists(BindingJournal.directory))
        #expect(try binding.carryOut(plan) == "vfio-pci")
        #expect(kernel.log.count == 3)
    }

    @Test func `bind, then restore, leaves the machine as before`() throws {
        let (host, _, binding) = try machine()
        try binding.carryOut(try binding.bindPlan(try pci, to: "vfio-pci"))
        try binding.carryOut(try binding.bindPlan(try pci, to: "uio_pci_generic"))
        #expect(try BindingJournal(host.tree).entry(try pci)?.driver == "virtio-pci")
        #expect(try binding.carryOut(try binding.restorePlan(try pci)) == "virtio-pci")
        #expect(try host.text("\(device)/driver_override") == "(null)")
        #expect(try BindingJournal(host.tree).entry(try pci) == nil)
    }

    @Test func `unbind leaves no driver, restore gives it back`() throws {
        let (_, _, binding) = try machine()
        #expect(try binding.carryOut(try binding.unbindPlan(try pci)) == nil)
        #expect(binding.currentDriver(try pci) == nil)
        #expect(try binding.carryOut(try binding.restorePlan(try pci)) == "virtio-pci")
    }

    @Test func `HI-J32: the wanted state is no reason to write`() throws {
        let (_, kernel, binding) = try machine()
        #expect(try binding.restorePlan(try pci).isDone)
        #expect(try binding.bindPlan(try pci, to: "virtio-pci").isDone)
        try binding.carryOut(try binding.bindPlan(try pci, to: "vfio-pci"))
        let count = kernel.log.count
        let again = try binding.bindPlan(try pci, to: "vfio-pci")
        #expect(again.isDone)
        #expect(try binding.carryOut(again) == "vfio-pci")
        try binding.carryOut(try binding.unbindPlan(try pci))
        #expect(try binding.unbindPlan(try pci).isDone)
        #expect(kernel.log.count == count + 1)
    }

    // MARK: Failures

    @Test func `HI-J12: a probe that fails although its write succeeded is rolled back`() throws {
        let (host, kernel, binding) = try machine()
        kernel.refusing = ["vfio-pci"]
        let plan = try binding.bindPlan(try pci, to: "vfio-pci")
        let refusal = try refusal { try binding.carryOut(plan) }
        #expect(refusal.id == "bind/failed")
        #expect(refusal.detail.contains("every write succeeded, but"))
        #expect(refusal.detail.contains("as before") && refusal.remedy.isEmpty)
        #expect(binding.currentDriver(try pci) == "virtio-pci")
        #expect(try host.text("\(device)/driver_override") == "(null)")
        #expect(try BindingJournal(host.tree).entry(try pci) == nil)
    }

    @Test func `HI-J12: each write that fails is rolled back`() throws {
        for file in ["\(device)/driver/unbind", "/sys/bus/pci/drivers_probe"] {
            let (host, kernel, binding) = try machine()
            kernel.failures = [file: .accessDenied]
            let plan = try binding.bindPlan(try pci, to: "vfio-pci")
            let refusal = try refusal { try binding.carryOut(plan) }
            #expect(refusal.id == "bind/failed" && refusal.detail.contains("Permission denied"))
            #expect(binding.currentDriver(try pci) == "virtio-pci")
            #expect(try host.text("\(device)/driver_override") == "(null)")
        }
    }

    @Test func `HI-J12: an override from before is put back, not cleared`() throws {
        let (host, kernel, binding) = try machine()
        try host.file("\(device)/driver_override", "virtio-pci\n")
        kernel.refusing = ["vfio-pci"]
        let plan = try binding.bindPlan(try pci, to: "vfio-pci")
        #expect(try refusal { try binding.carryOut(plan) }.id == "bind/failed")
        #expect(try host.text("\(device)/driver_override") == "virtio-pci")
    }

    @Test func `HI-J12: a rollback that fails too says what is there, and keeps the record`() throws
    {
        let (host, kernel, binding) = try machine()
        kernel.refusing = ["vfio-pci", "virtio-pci"]
        let plan = try binding.bindPlan(try pci, to: "vfio-pci")
        let refusal = try refusal { try binding.carryOut(plan) }
        #expect(refusal.detail.contains("no driver instead of virtio-pci"))
        #expect(refusal.remedy == "vhost-pci device restore \(address)")
        kernel.refusing = []
        #expect(try BindingJournal(host.tree).entry(try pci)?.driver == "virtio-pci")
        #expect(try binding.carryOut(try binding.restorePlan(try pci)) == "virtio-pci")
    }

    @Test func `HI-J12: after a crash at any write, restore brings everything back`() throws {
        for writes in 0...3 {
            let (host, kernel, binding) = try machine()
            kernel.writesBeforeCrash = writes
            let plan = try binding.bindPlan(try pci, to: "vfio-pci")
            _ = try? binding.carryOut(plan)
            let next = FakeKernel(host)
            next.defaultDrivers = [address: "virtio-pci"]
            let later = DriverBinding(host.tree, writer: next)
            try later.carryOut(try later.restorePlan(try pci))
            #expect(later.currentDriver(try pci) == "virtio-pci", "crash after \(writes) writes")
            #expect(try host.text("\(device)/driver_override") == "(null)")
            #expect(try BindingJournal(host.tree).entry(try pci) == nil)
        }
    }

    @Test func `HI-J12: the record is written before the first write`() throws {
        let (host, kernel, binding) = try machine()
        let address = try pci
        var recorded: [Bool] = []
        kernel.beforeWrite = { _ in
            recorded.append(
                (try? BindingJournal(host.tree).entry(address))??.driver == "virtio-pci"
            )
        }
        try binding.carryOut(try binding.bindPlan(address, to: "vfio-pci"))
        #expect(recorded == [true, true, true])
    }

    @Test func `HI-J12: without a place for the record nothing is changed`() throws {
        let (host, kernel, binding) = try machine()
        try host.file("/run", "not a directory")
        let plan = try binding.bindPlan(try pci, to: "vfio-pci")
        #expect(try refusal { try binding.carryOut(plan) }.id == "bind/journal")
        #expect(kernel.log.isEmpty)
    }

    @Test func `HI-J12: a record that somebody else wrote is not followed`() throws {
        for text in ["", "nonsense\n", "vhost-pci binding 1\nids a\ndriver ../../x\noverride -\n"] {
            let (host, kernel, binding) = try machine()
            try host.file("\(BindingJournal.directory)/\(address)", text)
            #expect(try refusal { _ = try binding.restorePlan(try pci) }.id == "bind/journal")
            #expect(kernel.log.isEmpty)
        }
    }

    @Test func `HI-J13: restore clears an override that nobody recorded`() throws {
        let (host, _, binding) = try machine()
        try host.file("\(device)/driver_override", "vfio-pci\n")
        try host.bind(address, to: "vfio-pci")
        #expect(try binding.carryOut(try binding.restorePlan(try pci)) == "virtio-pci")
        #expect(try host.text("\(device)/driver_override") == "(null)")
    }

    @Test func `HI-J12: a restore that nothing is on record for leaves no record, cut off or not`()
        throws
    {
        let (host, kernel, binding) = try machine()
        let journal = BindingJournal(host.tree)
        try host.file("\(device)/driver_override", "vfio-pci\n")
        try host.bind(address, to: "vfio-pci")
        // As it stands when the program was killed between its last two writes.
        let plan = try binding.restorePlan(try pci)
        for write in plan.writes.dropLast() { try kernel.write(write.text, to: write.path) }
        #expect(try journal.entry(try pci) == nil)
        #expect(try binding.carryOut(try binding.restorePlan(try pci)) == "virtio-pci")
        #expect(try host.text("\(device)/driver_override") == "(null)")
        #expect(try journal.entry(try pci) == nil)
    }

    // MARK: Wrong arguments

    @Test func `HI-J10: an address given as the driver is noticed`() throws {
        let (_, _, binding) = try machine()
        let refusal = try refusal { _ = try binding.bindPlan(try pci, to: "0000:03:00.1") }
        #expect(
            refusal.id == "bind/driver" && refusal.detail.contains("looks like a device address")
        )
    }

    @Test(arguments: ["", "../x", "a/b", "no such driver", "e1000e", "uio-pci-generic", "VFIO-PCI"])
    func `HI-J10: what is no driver is refused`(driver: String) throws {
        let (_, kernel, binding) = try machine()
        let refusal = try refusal { _ = try binding.bindPlan(try pci, to: driver) }
        #expect(refusal.id == "bind/driver" && kernel.log.isEmpty)
        if driver == "VFIO-PCI" { #expect(refusal.remedy == "did you mean vfio-pci?") }
    }

    @Test func `HI-J11: an address where nothing is has no plan`() throws {
        let (_, _, binding) = try machine()
        let other = try #require(PCIAddress("0000:03:00.7"))
        for work in [
            { _ = try binding.bindPlan(other, to: "vfio-pci") },
            { _ = try binding.unbindPlan(other) }, { _ = try binding.restorePlan(other) },
        ] {
            #expect(try refusal(work).id == "pci/address")
        }
    }

    @Test func `HI-J9: a driver that is not loaded is named with what loads it`() throws {
        let (host, _, binding) = try machine()
        host.remove("/sys/bus/pci/drivers/vfio-pci")
        let first = try refusal { _ = try binding.bindPlan(try pci, to: "vfio-pci") }
        #expect(first.id == "vfio/module" && first.remedy == "modprobe vfio-pci")
        try host.file("/proc/sys/kernel/osrelease", "6.1.0\n")
        try host.file("/lib/modules/6.1.0/modules.dep", "kernel/drivers/net/e1000.ko:\n")
        let second = try refusal { _ = try binding.bindPlan(try pci, to: "vfio-pci") }
        #expect(second.detail.contains("has no module vfio-pci"))
        try host.file("/lib/modules/6.1.0/modules.dep", "kernel/vfio/pci/vfio-pci.ko.xz: a.ko\n")
        let third = try refusal { _ = try binding.bindPlan(try pci, to: "vfio-pci") }
        #expect(third.remedy == "modprobe vfio-pci")
    }

    // MARK: Without an IOMMU

    @Test func `HI-J6: vfio-pci without a group is refused before anything is written`() throws {
        let (host, kernel, binding) = try machine(group: nil)
        let refusal = try refusal { _ = try binding.bindPlan(try pci, to: "vfio-pci") }
        #expect(refusal.id == "iommu/off" && refusal.detail.contains("firmware describes no IOMMU"))
        try host.file("/sys/firmware/acpi/tables/DMAR", "x")
        let other = try self.refusal { _ = try binding.bindPlan(try pci, to: "vfio-pci") }
        #expect(other.remedy.contains("intel_iommu=on"))
        #expect(kernel.log.isEmpty)
        #expect(try !binding.bindPlan(try pci, to: "uio_pci_generic").isDone)
    }

    @Test func `HI-J7: going without an IOMMU needs the option and the kernel's switch`() throws {
        let (host, _, binding) = try machine(group: nil)
        func plan() throws {
            _ = try binding.bindPlan(try pci, to: "vfio-pci", withoutIOMMU: true)
        }
        #expect(try refusal(plan).id == "iommu/noiommu-kernel")
        let file = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
        try host.file(file, "N\n")
        #expect(try refusal(plan).id == "iommu/unsafe")
        try host.file(file, "Y\n")
        #expect(throws: Never.self) { try plan() }
    }

    @Test func `HI-J7: what UIO does not protect from, or cannot do, is told`() throws {
        let (host, _, binding) = try machine()
        let file = "/sys/kernel/iommu_groups/3/type"
        for (type, words) in [
            ("DMA-FQ", "boot with iommu=pt"), ("DMA", "boot with iommu=pt"),
            ("identity", "overwriting any memory"), ("", "overwriting any memory"),
        ] {
            try host.file(file, type + "\n")
            let notes = try binding.bindPlan(try pci, to: "uio_pci_generic").notes
            #expect(notes.count == 1 && notes.first?.contains(words) == true)
        }
    }

    @Test func `a group that is not whole yet is told with the commands that complete it`() throws {
        let (host, _, binding) = try machine()
        try host.function("0000:03:00.1", driver: "e1000e", group: 3)
        try host.function("0000:03:00.2", classCode: 0x060400, driver: "pcieport", group: 3)
        let notes = try binding.bindPlan(try pci, to: "vfio-pci").notes
        #expect(notes.count == 1)
        #expect(notes.first?.contains("device bind 0000:03:00.1 --driver vfio-pci") == true)
    }
}
