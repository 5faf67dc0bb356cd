import GuestMemory
import HostSystem
import PCI
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import AdminQueue

@Suite struct HostileVirtualDeviceTests {
    private let loop: EventLoop
    private let device = HostileManagement()

    init() throws {
        loop = try EventLoop()
    }

    @Test(
        arguments: [(0, 0x1000, ~0), (~0xffff, 0, ~0), (~0xfff, 9, 8), (~0xfff, 1 << 63, ~0)]
            as [(UInt64, UInt64, UInt64)]
    )
    func `HI-A54: an MMU that cannot map our pages is refused`(
        _ mask: UInt64,
        _ first: UInt64,
        _ last: UInt64
    ) throws {
        let information = MMUInformation(
            pageSizeMask: mask,
            first: first,
            last: last,
            maximumMappings: 1
        )
        device.answer = {
            $0.opcode == .mmuInformation
                ? [0] + information.bytes : HostileManagement.plain($0)
        }
        let driver = try device.driver(loop)
        #expect(message { _ = try driver.transport(for: 1) }.hasPrefix("not supported"))
    }

    @Test func `HI-A54: an MMU that can map two pages gives two, and no address wraps`() throws {
        let start: UInt64 = (1 << 63) - 0x2000
        let information = MMUInformation(
            pageSizeMask: 0x1000,
            first: start,
            last: .max,
            maximumMappings: 1
        )
        device.answer = {
            $0.opcode == .mmuInformation
                ? [0] + information.bytes : HostileManagement.plain($0)
        }
        let transport = try device.driver(loop).transport(for: 1)
        let arena = try transport.makeArena(size: 1)
        #expect(arena.deviceAddress == start)
        #expect(message { _ = try transport.makeArena(size: 1) }.hasPrefix("limit/memory"))
        try transport.releaseArena(arena)
        #expect(message { _ = try transport.makeArena(size: 0x3000) }.hasPrefix("limit/memory"))
        #expect(try transport.makeArena(size: 0x2000).deviceAddress == start)
    }

    @Test func `HI-A50: a reset that is acknowledged but not done is refused`() throws {
        device.statusOverride = .driverOK
        let transport = try device.driver(loop).transport(for: 1)
        #expect(message { try transport.reset() }.hasPrefix("init/reset-timeout"))
    }

    @Test func `HI-A54: a device without queues is refused, absurd sizes are cut`() throws {
        device.answer = { command in
            switch command.opcode {
            case .information: [0, 60]
            case .queueInformation: [0, 0xff, 0xff]
            default: HostileManagement.plain(command)
            }
        }
        let driver = try device.driver(loop)
        let bare = try driver.transport(for: 1)
        #expect(message { _ = try bare.queueCount() }.hasPrefix("cfg/range"))
        device.answer = {
            $0.opcode == .queueInformation ? [0, 0xff, 0xff] : HostileManagement.plain($0)
        }
        #expect(try driver.transport(for: 2).queueLimit(1) == 32768)
    }
}
