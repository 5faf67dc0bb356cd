import GuestMemory
import HostSystem
import PCI
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import AdminQueue

@Suite struct EventServiceTests {
    private let loop: EventLoop
    private let device = HostileManagement()

    init() throws {
        loop = try EventLoop()
    }

    @Test func `HI-A52: events of unknown kinds, queues and devices do no harm`() throws {
        let driver = try device.driver(loop)
        let transport = try driver.transport(for: 1)
        let event = try transport.interrupt(1)
        try transport.bindConfigurationVector(2)
        var bytes = AdminEvent(.usedBuffer, virtualDeviceID: 1, index: 0xffff).bytes
        device.sendEvent(bytes)
        bytes[8] = 99
        device.sendEvent(bytes)
        device.sendEvent(AdminEvent(.usedBuffer, virtualDeviceID: 77).bytes)
        device.sendEvent([])
        device.sendEvent([1])
        for _ in 0..<8 { try loop.turn(limitMilliseconds: 0) }
        #expect(event.drain() == 0)
        #expect(driver.reports.isEmpty)
        #expect(try driver.list() == [])
    }

    @Test func `an event of a queue rings the vector of that queue and no other`() throws {
        let driver = try device.driver(loop)
        let transport = try driver.transport(for: 1)
        let events = [try transport.interrupt(0), try transport.interrupt(1)]
        let arena = try transport.makeArena(size: 1 << 16)
        var queues: [DriverBufferQueue] = []
        for index in 0..<2 {
            queues.append(
                try DriverBufferQueue(
                    transport: transport,
                    queue: index,
                    size: 8,
                    bufferSize: 64,
                    arena: arena,
                    features: [],
                    vector: UInt16(1 - index)
                )
            )
        }
        for queue in UInt16(0)..<2 {
            device.sendEvent(AdminEvent(.usedBuffer, virtualDeviceID: 1, index: queue).bytes)
            try loop.turn(limitMilliseconds: 0)
            #expect(events[Int(queue)].drain() == 0)
            #expect(events[1 - Int(queue)].drain() == 1)
        }
        try transport.reset()
        device.sendEvent(AdminEvent(.usedBuffer, virtualDeviceID: 1, index: 0).bytes)
        try loop.turn(limitMilliseconds: 0)
        #expect(events[1].drain() == 0)
    }

    @Test func `AVQ-D-324: after lost events everybody looks`() throws {
        let driver = try device.driver(loop)
        let transport = try driver.transport(for: 1)
        let event = try transport.interrupt(1)
        var lost = AdminEvent(.deviceAdded, virtualDeviceID: 9)
        lost.lostCount = 2
        device.sendEvent(lost.bytes)
        try loop.turn(limitMilliseconds: 0)
        #expect(event.drain() > 0)
        #expect(driver.reports.contains { $0.contains("2 events") })
    }

    @Test func `HI-A52: a device that tells of lost events without end fills no memory`() throws {
        let driver = try device.driver(loop)
        var reported = 0
        driver.onReport = { _ in reported += 1 }
        var lost = AdminEvent(.deviceAdded, virtualDeviceID: 9)
        for round in 1...1000 {
            lost.lostCount = .max
            device.sendEvent(lost.bytes)
            try loop.turn(limitMilliseconds: 0)
            #expect(driver.lostEventCount == UInt64(round) * UInt64(UInt32.max))
        }
        #expect(driver.reports.count == ManagementDriver.maximumReports)
        #expect(reported == ManagementDriver.maximumReports)
        #expect(driver.reports.last?.contains("no more is reported") == true)
        #expect(try driver.list() == [])
    }

    @Test func `HI-A52: a storm of events leaves other work its turn`() throws {
        let driver = try device.driver(loop)
        let transport = try driver.transport(for: 1)
        try transport.bindConfigurationVector(2)
        let event = try transport.interrupt(2)
        for _ in 0..<1000 {
            device.sendEvent(AdminEvent(.configurationChange, virtualDeviceID: 1).bytes)
            try loop.turn(limitMilliseconds: 0)
        }
        #expect(event.drain() > 0)
        #expect(try driver.list() == [])
    }

    @Test func `a device that says it is removed is gone for its driver`() throws {
        let driver = try device.driver(loop)
        let transport = try driver.transport(for: 1)
        device.sendEvent(AdminEvent(.deviceRemoved, virtualDeviceID: 1).bytes)
        try loop.turn(limitMilliseconds: 0)
        #expect(message { _ = try transport.status() }.hasPrefix("pci/device-gone"))
    }
}
