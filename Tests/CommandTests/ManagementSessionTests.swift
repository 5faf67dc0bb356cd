import AdminQueue
import ArgumentParser
import Foundation
import HostSystem
import NetSupport
import PCI
import Testing
import VhostPCINet
import Virtio
import VirtioSpec

@testable import vhost_pci

/// A management device with one virtual device built in and room for a second.
private final class BuiltIn: VirtualDeviceFactory {
    let loop: EventLoop
    let window: Mapping
    let doorbells: DoorbellTable

    init() throws {
        loop = try EventLoop()
        window = try Mapping.anonymous(length: 1 << 20)
        doorbells = try DoorbellTable(count: 16)
    }

    func makeDevice(
        type: DeviceType,
        attributes: DeviceAttributes,
        id: UInt64
    ) throws(AdminError) -> any VirtioDevice {
        guard type == .vhostPCINet else { throw .deviceType }
        return VhostPCINetDevice(
            name: "device\(id)",
            window: PeerWindowSlice(mapping: window),
            doorbells: doorbells,
            loop: loop
        )
    }

    func discard(_ device: any VirtioDevice) {}

    func session(_ capabilities: AdminCapabilities = .all) throws -> ManagementSession {
        let device = try ManagementDevice(
            capabilities: capabilities,
            limits: ManagementDevice.Limits(maximumDevices: 2),
            factory: self,
            peerWindow: window,
            peerDoorbells: doorbells,
            loop: loop
        )
        _ = try device.addStaticDevice(type: .vhostPCINet)
        return try ManagementSession(
            .emulated,
            InProcessFunction(endpoint: try VirtioPCIFunction(device: device))
        )
    }
}

@Suite struct ManagementSessionTests {
    private func emulated() throws -> ManagementSession {
        try ManagementSession(.emulated, try DeviceTarget.emulated.open(unsafeNoIOMMU: false))
    }

    @Test func `what a management device is`() throws {
        let session = try emulated()
        defer { session.close() }
        let report = try ManagementReport(session)
        #expect(report.schema == "vhost-pci.mgmt/1" && report.typeName == "management")
        #expect(report.capabilityMask == AdminCapabilities.all.rawValue)
        #expect(report.virtualDeviceCount == 0)
        #expect(report.dialects.map(\.isOffered) == [true, false, false])
        #expect(report.lines.contains { $0.contains("VDEV ERROR STATIC") })
    }

    @Test func `another device is refused by name`() throws {
        let loop = try EventLoop()
        let window = try Mapping.anonymous(length: 1 << 20)
        let device = VhostPCINetDevice(
            name: "device0",
            window: PeerWindowSlice(mapping: window),
            doorbells: try DoorbellTable(count: 2),
            loop: loop
        )
        let function = InProcessFunction(endpoint: try VirtioPCIFunction(device: device))
        #expect {
            try ManagementSession(.emulated, function)
        } throws: { error in
            let failure = CommandFailure(error)
            return failure.error.id == "mgmt/type" && failure.line.contains("vhost-pci-net device")
        }
    }

    @Test func `a device without a capability shows the commands it leaves out`() throws {
        let session = try BuiltIn().session([.virtualDevices, .errorRecord])
        defer { session.close() }
        let report = try ManagementReport(session)
        #expect(report.virtualDeviceCount == nil && report.capabilities == ["VDEV", "ERROR"])
        #expect(try session.list() == nil)
        let commands = AdminCommandTable(target: "emulated", session.driver.capabilities).commands
        #expect(commands.count == VirtualDeviceOpcode.allCases.count)
        #expect(commands.first { $0.name == "VDEV CREATE" }?.isAvailable == true)
        #expect(commands.first { $0.name == "VDEV LIST" }?.isAvailable == false)
        let caps = CapabilityTable(target: "emulated", session.driver.capabilities)
        #expect(caps.capabilities.first { $0.name == "MMU" }?.isOffered == false)
    }

    @Test func `an unknown capability keeps its number`() {
        let table = CapabilityTable(target: "x", AdminCapabilities(rawValue: 1 << 63 | 2))
        #expect(table.capabilities.last?.bit == 63 && table.capabilities.last?.name == nil)
        #expect(table.lines.last?.contains("unknown to this program") == true)
        #expect(CapabilityTable.names(AdminCapabilities(rawValue: 1 << 63)) == ["bit-63"])
    }

    @Test func `a built-in device is listed, shown, reset, and stays`() throws {
        let session = try BuiltIn().session()
        defer { session.close() }
        let list = VirtualDeviceList(target: "emulated", try #require(try session.list()))
        #expect(list.devices.map(\.id) == [1] && list.devices[0].isStatic && list.reason == nil)
        #expect(list.lines.count == 2)
        let device = try session.show(1)
        #expect(device.queues?.map(\.size) == [64, 64, 256] && device.status == "RESET")
        #expect(device.lines[0] == "device      1  vhost-pci-net, type 63, built in")
        try session.driver.transport(for: 1).reset()
        #expect {
            try session.driver.destroy(1)
        } throws: { error in
            "\(error)".contains("STATIC_DEVICE")
        }
        #expect(try session.list()?.map(\.id) == [1])
    }

    @Test func `a device is added, shown and destroyed; none is in the way afterwards`() throws {
        let session = try emulated()
        defer { session.close() }
        let id = try session.driver.create(type: .vhostPCINet)
        let device = try session.show(id)
        #expect(device.typeName == "vhost-pci-net" && !device.isStatic)
        try session.driver.destroy(id)
        let list = VirtualDeviceList(target: "emulated", try #require(try session.list()))
        #expect(list.devices.isEmpty && list.lines.isEmpty)
        #expect(list.reason?.contains("vdev add --hold") == true)
    }

    @Test(arguments: [(UInt32(0), 2), (UInt32.max, 1), (1, 4)])
    func `configuration that is not there cannot be written`(row: (UInt32, Int)) throws {
        let session = try BuiltIn().session()
        defer { session.close() }
        let device = try session.driver.transport(for: 1)
        #expect {
            try device.writeConfiguration([UInt8](repeating: 1, count: row.1), at: Int(row.0))
        } throws: { error in
            CommandFailure(error).error.id == "cfg/range"
        }
    }

    @Test func `a virtual device that does not exist is named`() throws {
        let session = try emulated()
        defer { session.close() }
        #expect {
            try session.show(7)
        } throws: { error in
            let failure = CommandFailure(error)
            return failure.error.id == "admin/VDEV INFO" && failure.exitStatus == 1
                && failure.error.detail.hasPrefix("NO_SUCH_DEVICE")
        }
    }

    @Test(arguments: AdminQualifier.allCases)
    func `a refused admin command keeps the device's words and says what to do`(
        qualifier: AdminQualifier
    ) {
        let words = AdminErrorRecord(AdminError(qualifier)).description
        let refusal = AdminRefusal.named("VDEV INFO", words, .emulated)
        #expect(refusal.id == "admin/VDEV INFO" && refusal.detail == words)
        let cured: Set<AdminQualifier> = [
            .noSuchDevice, .noRoomForDevice, .noResource, .badDeviceType, .badFeatures,
            .badAttribute, .staticDevice, .badOffset, .tryAgain, .invalidOpcode, .invalidMember,
        ]
        #expect(refusal.remedy.isEmpty != cured.contains(qualifier))
    }

    @Test func `a session that ended is over`() throws {
        let session = try emulated()
        session.close()
        session.close()
        #expect(throws: VirtioError.self) { try session.driver.create(type: .vhostPCINet) }
    }
}

@Suite struct VdevCommandTests {
    private static func parse<Command: ParsableCommand>(
        _ type: Command.Type,
        _ line: String
    ) throws -> Command {
        let words = line.split(separator: " ").map(String.init)
        return try #require(try VhostPCI.parseAsRoot(words) as? Command)
    }

    @Test func `options of add become attributes`() throws {
        let add = try Self.parse(
            VdevAddCommand.self,
            "vdev add emulated --type 63 --features 0x100000000 --queues 3 --queue-size 64"
                + " --vectors 2 --configuration 0a:0b --uuid 00112233-4455-6677-8899-aabbccddeeff"
        )
        #expect(add.type.type == .vhostPCINet)
        #expect(add.attributes.features == .version1 && add.attributes.queueCount == 3)
        #expect(add.attributes.maximumQueueSize == 64 && add.attributes.vectorCount == 2)
        #expect(add.attributes.configuration == [10, 11])
        #expect(add.attributes.uuid?.first == 0 && add.attributes.uuid?.last == 0xff)
    }

    @Test(arguments: [
        "vdev add emulated", "vdev add emulated --type", "vdev add emulated --type 0",
        "vdev add emulated --type disk", "vdev add emulated --type net --queues 65536",
        "vdev add emulated --type net --queue-size 3",
        "vdev add emulated --type net --queue-size 0",
        "vdev add emulated --type net --features 0xg", "vdev add emulated --type net --features -1",
        "vdev add emulated --type net --features 0x", "vdev add emulated --type net --features +1",
        "vdev add emulated --type net --configuration 123",
        "vdev add emulated --type net --configuration +1+2",
        "vdev add emulated --type net --uuid 0011", "vdev add eth9:x --type net",
        "vdev add emulated --type net --hold --dry-run", "vdev show emulated",
        "vdev show emulated 0", "vdev show emulated -1", "vdev show emulated x",
        "vdev show emulated 99999999999999999999", "vdev set emulated 1",
        "vdev set emulated 1 --configuration 6", "vdev set emulated 1 --configuration =00",
        "vdev set emulated 1 --configuration 6=", "vdev set emulated 1 --configuration 6=0",
        "vdev set emulated 1 --configuration -6=00", "vdev set emulated 1 --configuration 6=00=00",
        "mgmt show", "mgmt frob emulated", "vdev del",
    ])
    func `what is no command is wrong usage`(line: String) {
        #expect(throws: (any Error).self) {
            try VhostPCI.parseAsRoot(line.split(separator: " ").map(String.init))
        }
    }

    @Test func `a dry run shows the bytes that would be sent`() {
        let change = VirtualDeviceChange(
            "del",
            target: "emulated",
            id: 1,
            [VirtualDeviceChange.Command(.destroy, for: 1)]
        )
        #expect(change.isDryRun && !change.isChanged)
        #expect(change.lines(done: "x") == ["would send VDEV DESTROY: 010000000000000002000100"])
    }

    @Test func `how long a device lives is told, of the emulated one too`() throws {
        let text = VdevAddCommand.lifetime(.emulated, isHeld: false)
        #expect(text.contains("emulated in this process") && text.contains("--hold"))
        let address = try DeviceTarget.parse("0000:03:00.0")
        #expect(!VdevAddCommand.lifetime(address, isHeld: true).contains("emulated"))
    }

    @Test func `every key that is printed stands in the page`() throws {
        let session = try ManagementSession(
            .emulated,
            try DeviceTarget.emulated.open(unsafeNoIOMMU: false)
        )
        defer { session.close() }
        let id = try session.driver.create(type: .vhostPCINet)
        let device = try session.show(id)
        var change = VirtualDeviceChange(
            "add",
            target: "emulated",
            id: id,
            [VirtualDeviceChange.Command(.destroy, for: id)]
        )
        change.device = device
        change.notes = ["x"]
        try JSONPage("management-json").expect(
            [
                try ManagementReport(session), CapabilityTable(target: "x", .all),
                AdminCommandTable(target: "x", .all), change,
                VirtualDeviceList(target: "x", [device]), VirtualDeviceList(target: "x", []),
                VirtualDeviceShow(target: "x", device: device),
            ],
            least: 39
        )
    }
}
