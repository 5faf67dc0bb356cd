import ArgumentParser
import HostSupport
import HostSystem
import PCI
import Testing

@testable import vhost_pci

/// The commands as they are typed, on a made-up host; no kernel answers there, so a change that is
/// carried out fails and is rolled back.
@Suite struct DeviceBindCommandTests {
    private let address = "0000:03:00.0"
    private var device: String { FixtureTree.device(address) }

    private func machine() throws -> FixtureTree {
        let host = try FixtureTree()
        try host.function(address, driver: "virtio-pci", group: 3)
        try host.driver("vfio-pci")
        return host
    }

    /// The exit status of a command.
    private func run(_ arguments: String..., on host: FixtureTree) throws -> Int32 {
        var command: any ParsableCommand
        do {
            command = try VhostPCI.parseAsRoot(arguments + ["--sysroot", host.root])
        } catch { return 2 }
        do { try command.run() } catch let status as ExitCode { return status.rawValue }
        return 0
    }

    private func state(_ host: FixtureTree) throws -> [String] {
        [
            try host.text("\(device)/driver_override"),
            host.tree.linkName("\(device)/driver") ?? "none",
            "\(host.tree.exists(BindingJournal.directory + "/" + address))",
        ]
    }

    @Test(arguments: ["bind", "unbind", "restore"])
    func `a dry run writes nothing`(name: String) throws {
        let host = try machine()
        let before = try state(host)
        #expect(try run("device", name, address, "--dry-run", on: host) == 0)
        #expect(try run("device", name, address, "--dry-run", "--json", on: host) == 0)
        #expect(try state(host) == before)
    }

    @Test func `HI-J1: a device in use is left alone with status 3`() throws {
        let host = try machine()
        try host.interface("eth7", of: address)
        try host.link("/sys/class/net/eth7/master", to: "../br0")
        let before = try state(host)
        for name in ["bind", "unbind"] {
            #expect(try run("device", name, address, on: host) == 3)
            #expect(try run("device", name, address, "--dry-run", on: host) == 3)
        }
        #expect(try state(host) == before)
    }

    @Test func `HI-J10: wrong usage is status 2`() throws {
        let host = try machine()
        #expect(try run("device", "bind", "vfio-pci", on: host) == 2)
        #expect(try run("device", "bind", address, "--driver", address, on: host) == 2)
        #expect(try run("device", "bind", address, "--driver", "../x", on: host) == 2)
        #expect(try run("device", "bind", address, address, on: host) == 2)
        #expect(try run("device", "unbind", address, "--driver", "x", on: host) == 2)
        #expect(try run("device", "reset", on: host) == 2)
    }

    @Test func `what cannot be done is status 1`() throws {
        let host = try machine()
        #expect(try run("device", "bind", "0000:03:00.7", on: host) == 1)
        #expect(try run("device", "bind", "emulated", on: host) == 1)
        #expect(try run("device", "reset", address, on: host) == 1)
        host.remove("/sys/bus/pci/drivers/vfio-pci")
        #expect(try run("device", "bind", address, on: host) == 1)
    }

    @Test func `HI-J12: a kernel that does nothing is noticed`() throws {
        let host = try machine()
        try host.file("\(device)/driver/unbind", "")
        #expect(try run("device", "bind", address, on: host) == 1)
        #expect(host.tree.linkName("\(device)/driver") == "virtio-pci")
        #expect(try host.text("/sys/bus/pci/drivers_probe") == address)
    }

    @Test func `HI-J32: nothing to do is status 0`() throws {
        let host = try machine()
        #expect(try run("device", "restore", address, on: host) == 0)
        #expect(try run("device", "bind", address, "--driver", "virtio-pci", on: host) == 0)
        #expect(try host.text("/sys/bus/pci/drivers_probe") == "")
    }

    @Test func `restore --all goes through the journal, and on after a failure`() throws {
        let host = try machine()
        #expect(try run("device", "restore", "--all", on: host) == 0)
        #expect(try run("device", "restore", on: host) == 2)
        #expect(try run("device", "restore", address, "--all", on: host) == 2)
        let journal = BindingJournal(host.tree)
        let other = "0000:04:00.0"
        try host.function(other, driver: "virtio-pci", group: 4)
        let function = try #require(PCIAddress(other))
        let identity = try DriverBinding(host.tree).restorePlan(function, force: false).identity
        try journal.record(
            .init(identity: identity, driver: "virtio-pci", override: nil),
            for: function
        )
        try host.file("\(BindingJournal.directory)/\(address)", "somebody else's")
        #expect(journal.addresses.map { "\($0)" } == [address, other])
        #expect(try run("device", "restore", "--all", "--dry-run", on: host) == 1)
        #expect(journal.addresses.count == 2)
        #expect(try run("device", "restore", "--all", "--json", on: host) == 1)
        #expect(journal.addresses.map { "\($0)" } == [address])
    }

    @Test func `reset of the emulated device is a reset of its registers`() throws {
        let host = try machine()
        #expect(try run("device", "reset", "emulated", on: host) == 0)
        #expect(try run("device", "reset", "emulated", "--dry-run", on: host) == 0)
    }
}
