import RingSupport
import Testing
import VirtioSpec
import Virtqueue

/// Suppression of notifications, both ways and with both mechanisms (virtio 1.3 §2.7.7, §2.7.10).
@Suite struct NotificationTests {
    private static let buffer = DriverBuffer(
        address: SplitRingRig.buffers,
        length: 64,
        isWritable: false
    )

    /// Has a device use `count` chains one by one; at which of them it would notify.
    private func notified(_ rig: SplitRingRig, _ count: Int) throws -> [Bool] {
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        return (0..<count).map { _ in
            rig.offer(0, SplitRingRig.buffers, 8)
            burst.clear()
            _ = queue.takeReadable(into: &burst, limit: 1)
            queue.releaseTaken(burst)
            return queue.shouldNotifyDriver()
        }
    }

    @Test func `VPN-M-12: the driver's flag decides without EVENT_IDX`() throws {
        let rig = try SplitRingRig()
        #expect(try notified(rig, 3) == [true, true, true])
        let quiet = try SplitRingRig()
        quiet.driverFlags = SplitRingLayout.noInterrupt
        #expect(try notified(quiet, 3) == [false, false, false])
    }

    @Test func `HI-A28: unknown flags do not matter`() throws {
        let rig = try SplitRingRig()
        rig.driverFlags = 0xFFFE
        #expect(try notified(rig, 2) == [true, true])
        rig.driverFlags = 0xFFFF
        #expect(try notified(try SplitRingRig(), 1) == [true])
    }

    @Test func `HI-A28: with EVENT_IDX the flag is not looked at`() throws {
        let rig = try SplitRingRig(features: .eventIndex)
        rig.driverFlags = 0xFFFF
        rig.usedEvent = 2
        #expect(try notified(rig, 5) == [true, false, true, false, false])
    }

    @Test func `VPN-M-12: used_event decides with EVENT_IDX, over the wrap as well`() throws {
        let rig = try SplitRingRig(features: .eventIndex, start: 65_533)
        rig.usedEvent = 0
        // The first is always told: what the driver asked for before this device is not known.
        #expect(try notified(rig, 6) == [true, false, false, true, false, false])
    }

    @Test(arguments: [0, 1, 7, 8, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF] as [UInt16])
    func `HI-A28: any event index changes only how often we notify`(event: UInt16) throws {
        let rig = try SplitRingRig(features: .eventIndex)
        rig.usedEvent = event
        let told = try notified(rig, 20)
        #expect(rig.usedIndex == 20)
        #expect(told.filter { $0 }.count <= 2)
    }

    @Test func `a burst that passes the event index is told once`() throws {
        let rig = try SplitRingRig(size: 32, features: .eventIndex)
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        var told: [Bool] = []
        for _ in 0..<4 {
            for head in UInt16(0)..<8 { rig.offer(head, SplitRingRig.buffers, 8) }
            burst.clear()
            #expect(queue.takeReadable(into: &burst, limit: 8) == 8)
            queue.releaseTaken(burst)
            told.append(queue.shouldNotifyDriver())
            rig.usedEvent = 20
        }
        #expect(told == [true, false, true, false])
        #expect(queue.shouldNotifyDriver() == false)
    }

    @Test func `a polling device asks for silence and a resting one for a notification`() throws {
        for features: QueueFeatures in [[], .eventIndex] {
            let rig = try SplitRingRig(features: features)
            var device = try SplitDeviceQueue(rig.configuration, memory: rig.table)
            var driver = try SplitDriverQueue(rig.configuration, memory: rig.table)
            device.suppressNotifications()
            #expect(driver.post(Self.buffer) != nil)
            driver.publish()
            #expect(driver.shouldNotifyDevice() == false)
            #expect(device.requestNotifications() == true)
            #expect(device.takeChain() != nil)
            #expect(device.requestNotifications() == false)
            #expect(driver.post(Self.buffer) != nil)
            driver.publish()
            #expect(driver.shouldNotifyDevice() == true)
            #expect(driver.shouldNotifyDevice() == false)
        }
    }

    @Test func `a polling driver asks for silence and a resting one for a notification`() throws {
        for features: QueueFeatures in [[], .eventIndex] {
            let rig = try SplitRingRig(features: features)
            var device = try SplitDeviceQueue(rig.configuration, memory: rig.table)
            var driver = try SplitDriverQueue(rig.configuration, memory: rig.table)
            for _ in 0..<3 { #expect(driver.post(Self.buffer) != nil) }
            driver.publish()
            let first = try present(device.takeChain())
            device.release(head: first.head, written: 0)
            #expect(device.shouldNotifyDriver() == true)
            driver.suppressInterrupts()
            let second = try present(device.takeChain())
            device.release(head: second.head, written: 0)
            #expect(device.shouldNotifyDriver() == false)
            #expect(driver.requestInterrupts() == true)
            #expect(driver.reap() != nil)
            #expect(driver.reap() != nil)
            #expect(driver.requestInterrupts() == false)
            let third = try present(device.takeChain())
            device.release(head: third.head, written: 0)
            #expect(device.shouldNotifyDriver() == true)
        }
    }
}
