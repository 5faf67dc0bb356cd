import GuestMemory
import HostSystem
import PCI
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import AdminQueue

@Suite struct ManagementDriverTests {
    private let loop: EventLoop
    private let device = HostileManagement()

    init() throws {
        loop = try EventLoop()
    }

    // Which dialect.

    @Test func `AVQ-M-901: another device type is refused whatever it offers`() {
        #expect(
            message { _ = try HostileManagement(type: .net).driver(loop) }.contains("virtio-net")
        )
    }

    @Test func `AVQ-M-901: without the dialect's feature the device is refused`() {
        device.offeredFeatures = .version1
        #expect(message { _ = try device.driver(loop) }.hasPrefix("init/features"))
        #expect(device.commands.isEmpty)
    }

    @Test func `AVQ-M-201, AVQ-M-902: the dialect is taken, bit 40 and bit 41 are not`() throws {
        device.offeredFeatures.formUnion([.ringReset, .adminQueue])
        _ = try device.driver(loop)
        #expect(device.features == [.version1, .managementVirtualDeviceDialect, .eventIndex])
    }

    @Test func `AVQ-M-301, AVQ-M-202: the capability mask is asked for first, with id 0`() throws {
        _ = try device.driver(loop)
        #expect(device.opcodes.first == .capabilityGet)
        #expect(device.commands.first?.header.virtualDeviceID == 0)
    }

    @Test func `AVQ-M-301: a class whose capability is missing is not used`() throws {
        device.capabilities = [.virtualDevices]
        let driver = try device.driver(loop)
        #expect(device.opcodes == [.capabilityGet])
        #expect(message { _ = try driver.list() }.hasPrefix("not supported"))
        #expect(message { _ = try driver.transport(for: 1) }.hasPrefix("not supported"))
        #expect(device.opcodes == [.capabilityGet])
        device.capabilities = []
        try driver.refreshCapabilities()
        #expect(message { _ = try driver.create(type: .net) }.hasPrefix("not supported"))
        #expect(message { try driver.destroy(1) }.hasPrefix("not supported"))
    }

    @Test func `a device that means the mask 0x1 is understood and reported`() throws {
        device.capabilities = [.virtualDevicesAsMask]
        let driver = try device.driver(loop)
        #expect(driver.capabilities.contains(.virtualDevices))
        #expect(driver.reports.contains { $0.contains("0x1") })
        #expect(try driver.create(type: .net) == 1)
        let plain = HostileManagement()
        #expect(try plain.driver(loop).reports.isEmpty)
    }

    @Test func `HI-F92: capabilities that shrink are reported and stay shrunk`() throws {
        let driver = try device.driver(loop)
        device.capabilities = AdminCapabilities.all.subtracting(.deviceMMU)
        try driver.refreshCapabilities()
        #expect(driver.reports.contains { $0.hasPrefix("admin/shrunk") && $0.contains("MMU") })
        device.capabilities = .all
        try driver.refreshCapabilities()
        #expect(!driver.capabilities.contains(.deviceMMU))
    }

    // Creation.

    @Test func `AVQ-M-203, AVQ-M-303: devices are listed before the first creation, with id 0`()
        throws
    {
        let driver = try device.driver(loop)
        #expect(try driver.create(type: EchoDevice.type) == 1)
        let opcodes = device.opcodes
        let list = try #require(opcodes.firstIndex(of: .list))
        let create = try #require(opcodes.firstIndex(of: .create))
        #expect(list < create)
        #expect(device.commands[create].header.virtualDeviceID == 0)
        #expect(device.commands[create].arguments == [60, 0, 0, 0])
    }

    @Test func `AVQ-M-303: a list is followed while there is more`() throws {
        let pages: [UInt64: DeviceList] = [
            0: DeviceList(ids: [2, 3], hasMore: true), 3: DeviceList(ids: [9], hasMore: true),
            9: DeviceList(ids: [12], hasMore: false),
        ]
        device.answer = { command in
            guard command.opcode == .list else { return HostileManagement.plain(command) }
            return [0] + (pages[WireFields(command.arguments)[0]]?.bytes ?? [])
        }
        #expect(try device.driver(loop).list() == [2, 3, 9, 12])
    }

    @Test(arguments: [
        DeviceList(ids: [], hasMore: true), DeviceList(ids: [2, 2], hasMore: false),
        DeviceList(ids: [3, 2], hasMore: false), DeviceList(ids: [0], hasMore: false),
        DeviceList(ids: [7], hasMore: true),
    ])
    func `HI-F91: a list that does not end or does not ascend is refused`(
        _ list: DeviceList
    ) throws {
        device.answer = { $0.opcode == .list ? [0] + list.bytes : HostileManagement.plain($0) }
        let driver = try device.driver(loop)
        #expect(message { _ = try driver.list() }.hasPrefix("admin/VDEV LIST"))
    }

    @Test func `HI-F95: a creation that answers with 0 or a known id is refused`() throws {
        let driver = try device.driver(loop)
        _ = try driver.create(type: EchoDevice.type)
        #expect(message { _ = try driver.create(type: EchoDevice.type) }.hasPrefix("admin/id"))
        device.answer = {
            $0.opcode == .create
                ? [0] + HostileManagement.little(UInt64(0)) : HostileManagement.plain($0)
        }
        #expect(message { _ = try driver.create(type: EchoDevice.type) }.hasPrefix("admin/id"))
    }

    @Test func `HI-F95, HI-F91: an id that was cut off counts as 0`() throws {
        device.answer = { $0.opcode == .create ? [0] : HostileManagement.plain($0) }
        let driver = try device.driver(loop)
        #expect(message { _ = try driver.create(type: EchoDevice.type) }.hasPrefix("admin/id"))
    }

    @Test func `AVQ-M-204, HI-F62: a device in use is not destroyed without force`() throws {
        let rig = try ManagementRig()
        let driver = try rig.driver()
        let id = try driver.create(type: EchoDevice.type)
        let transport = try driver.transport(for: id)
        let client = try EchoClient(transport)
        #expect(message { try driver.destroy(id) }.hasPrefix("admin/busy"))
        #expect(try client.echo([1]) == [1])
        try transport.reset()
        try driver.destroy(id)
        #expect(rig.device.virtualDeviceIDs.isEmpty)
        #expect(rig.factory.discarded == 1)
    }

    @Test func `errors of the device carry their names`() throws {
        let rig = try ManagementRig()
        let driver = try rig.driver()
        #expect(message { _ = try driver.create(type: .net) }.contains("BAD_DEVICE_TYPE"))
        #expect(message { try driver.destroy(77) }.contains("NO_SUCH_DEVICE"))
        rig.factory.room = 0
        #expect(message { _ = try driver.create(type: EchoDevice.type) }.contains("NO_ROOM"))
        var attributes = DeviceAttributes()
        attributes.queueCount = 9
        rig.factory.room = 8
        #expect(
            message { _ = try driver.create(type: EchoDevice.type, attributes: attributes) }
                .contains("BAD_ATTRIBUTE")
        )
    }

    // Answers.

    @Test func `AVQ-M-302: every command gives room for an error record`() throws {
        let driver = try device.driver(loop)
        let transport = try driver.transport(for: driver.create(type: EchoDevice.type))
        try transport.setStatus(.acknowledge)
        try transport.notifyQueue(0)
        try transport.bindConfigurationVector(1)
        try driver.destroy(1)
        #expect(device.commands.count > 7)
        for command in device.commands { #expect(command.room >= 9) }
    }

    @Test(arguments: [2, 7, 0xff] as [UInt8])
    func `HI-F90: a reserved acknowledgement is a failure`(_ acknowledgement: UInt8) throws {
        device.answer = {
            $0.opcode == .create ? [acknowledgement] : HostileManagement.plain($0)
        }
        let driver = try device.driver(loop)
        #expect(message { _ = try driver.create(type: .net) }.contains("INVALID_COMMAND"))
    }

    @Test func `HI-F90: reserved codes and qualifiers are shown as numbers`() throws {
        device.answer = {
            $0.opcode == .create
                ? HostileManagement.failure(4711, 0x777) : HostileManagement.plain($0)
        }
        let driver = try device.driver(loop)
        let text = message { _ = try driver.create(type: .net) }
        #expect(text.contains("4711"))
        #expect(text.contains("0x777"))
        #expect(text.contains("INVALID_COMMAND"))
    }

    @Test func `HI-F91: an answer without acknowledgement is a failure`() throws {
        device.answer = { $0.opcode == .create ? [] : HostileManagement.plain($0) }
        let driver = try device.driver(loop)
        #expect(
            message { _ = try driver.create(type: .net) }.contains("without acknowledgement")
        )
    }

    @Test func `HI-F91: results that were cut read as zero`() throws {
        device.answer = {
            $0.opcode == .information ? [0, 60] : HostileManagement.plain($0)
        }
        let information = try device.driver(loop).information(1)
        #expect(information.type == EchoDevice.type)
        #expect(information.queueCount == 0)
        #expect(information.configurationSize == 0)
    }

    // Waiting.

    @Test func `AVQ-M-306, AVQ-M-903, HI-A47, HI-F94: silence ends at a deadline and in a reset`()
        throws
    {
        device.answer = { $0.opcode == .create ? nil : HostileManagement.plain($0) }
        let driver = try device.driver(loop, timeoutMilliseconds: 30)
        let start = MonotonicClock.now
        let text = message { _ = try driver.create(type: .net) }
        #expect(text == "ctrl/timeout: no answer to VDEV CREATE")
        #expect(MonotonicClock.now - start < 10_000_000_000)
        #expect(device.deactivations == 1)
        let count = device.commands.count
        #expect(message { _ = try driver.list() } == text)
        #expect(device.commands.count == count)
    }

    @Test func `AVQ-M-306: a device that does not even tell its capabilities is refused`() throws {
        let function = try VirtioPCIFunction(device: MuteManagement())
        let transport = try PCITransport(function: InProcessFunction(endpoint: function))
        let text = message {
            _ = try ManagementDriver(transport: transport, loop: loop, timeoutMilliseconds: 20)
        }
        #expect(text.hasPrefix("ctrl/timeout"))
        #expect(try transport.status() == [])
    }

    @Test func `HI-F94: "try again" is tried again, eight times at most`() throws {
        var left = 3
        device.answer = { command in
            guard command.opcode == .create, left > 0 else {
                return HostileManagement.plain(command)
            }
            left -= 1
            return HostileManagement.failure(11, 7)
        }
        let driver = try device.driver(loop)
        #expect(try driver.create(type: .net) == 1)
        left = .max
        let before = device.commands.count
        #expect(message { _ = try driver.create(type: .net) }.hasPrefix("ctrl/timeout"))
        #expect(device.commands.count == before + 9)
        // Nothing is broken by that.
        #expect(try driver.list() == [])
    }

    @Test func `AVQ-M-207: a late answer is waited for, with the loop being served`() throws {
        let driver = try device.driver(loop, timeoutMilliseconds: 2000)
        device.isPaused = true
        var isServed = false
        loop.after(milliseconds: 20) { [device] in
            isServed = true
            device.isPaused = false
            device.queueNotified(0)
        }
        #expect(try driver.create(type: EchoDevice.type) == 1)
        #expect(isServed)
    }

    @Test func `a command issued while another waits gets its own answer`() throws {
        let driver = try device.driver(loop, timeoutMilliseconds: 2000)
        _ = try driver.list()
        device.isPaused = true
        var inner: DeviceInformation?
        loop.after(milliseconds: 5) { [device, loop] in
            loop.after(milliseconds: 5) {
                device.isPaused = false
                device.queueNotified(0)
            }
            inner = try? driver.information(7)
        }
        #expect(try driver.create(type: EchoDevice.type) == 1)
        #expect(inner?.configurationSize == 8)
    }

    // The end.

    @Test func `closing resets the management device and ends its transports`() throws {
        let rig = try ManagementRig()
        let driver = try rig.driver()
        let id = try driver.create(type: EchoDevice.type)
        let transport = try driver.transport(for: id)
        _ = try EchoClient(transport)
        driver.close()
        #expect(rig.device.virtualDeviceIDs.isEmpty)
        #expect(rig.bus.memory.all.isEmpty)
        #expect(message { _ = try transport.status() }.hasPrefix("pci/device-gone"))
        #expect(message { _ = try driver.create(type: EchoDevice.type) }.contains("gone"))
    }

    @Test func `a driver that is dropped leaves nothing behind`() throws {
        let rig = try ManagementRig()
        for _ in 0..<20 {
            let driver = try rig.driver()
            let id = try driver.create(type: EchoDevice.type)
            _ = try EchoClient(driver.transport(for: id))
        }
        #expect(rig.device.virtualDeviceIDs.isEmpty)
        #expect(rig.bus.memory.all.isEmpty)
        #expect(rig.factory.living.isEmpty)
    }
}
