import GuestMemory
import HostSystem
import PCI
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import VhostPCINet

/// A vhost-pci-net device that says whatever a test tells it to.
final class FakeDevice: VirtioDevice, PeerWindowProvider {
    let type = DeviceType.vhostPCINet
    var offeredFeatures = FeatureMirror.supported
    var queueLimits: [UInt16] = [64, 64, 256, 256]
    let configuration: [UInt8] = []
    let peerWindow: Mapping
    let peerDoorbells: DoorbellTable
    private(set) var activations = 0
    private(set) var context: (any DeviceContext)?
    /// What queue 0 held at DRIVER_OK.
    private(set) var buffersAtStart: [Int] = []
    /// Messages of the driver.
    private(set) var received: [DriverMessage] = []
    /// Answers OFF with OFF.
    var answersOff = true
    /// Runs when a message of the driver came.
    var whenReceived: (() -> Void)?
    private var receive: DeviceBufferQueue?
    private var transmit: DeviceBufferQueue?
    private var buffers: [DeviceBufferQueue.Buffer] = []

    init(windowSize: Int = 1 << 20) throws {
        peerWindow = try Mapping.anonymous(length: windowSize)
        peerDoorbells = try DoorbellTable(count: 4)
    }

    func writeConfiguration(_ bytes: [UInt8], at offset: Int) -> Bool { false }
    func acceptsFeatures(_ features: FeatureBits) -> Bool { true }

    func activate(_ context: any DeviceContext) {
        activations += 1
        self.context = context
        receive = try? DeviceBufferQueue(context: context, queue: 0)
        transmit = try? DeviceBufferQueue(context: context, queue: 1)
        takeBuffers()
        buffersAtStart = buffers.map(\.writableCount)
    }

    func queueNotified(_ queue: Int) {
        takeBuffers()
        while let buffer = transmit?.next() {
            transmit?.complete(buffer)
            guard let message = try? DriverMessage(frame: buffer.readable) else { continue }
            received.append(message)
            whenReceived?()
            if message == .off, answersOff { send(.connection(isOn: false)) }
        }
    }

    func deactivate() {
        context = nil
        receive = nil
        transmit = nil
        buffers = []
    }

    func send(_ message: DeviceMessage) {
        send(message.frame)
    }

    func send(_ frame: [UInt8]) {
        takeBuffers()
        guard !buffers.isEmpty else {
            Issue.record("the driver has no buffer posted")
            return
        }
        receive?.complete(buffers.removeFirst(), writing: frame)
    }

    private func takeBuffers() {
        while let buffer = receive?.next() { buffers.append(buffer) }
    }
}
