internal import GuestMemory
public import HostSystem
public import PCI
internal import VhostUser
public import Virtio
internal import VirtioSpec

// The window: what of the peer's memory is shown, and to whom.
extension VhostPCINetDevice {
    /// The memory behind BAR 2, for a function of its own.
    public var peerWindow: Mapping { window.slice.mapping }

    /// The memory behind BAR 4, while the peer's memory lies in two files.
    public var secondPeerWindow: Mapping? {
        window.slices.count > 1 ? window.slices[1].mapping : nil
    }

    /// The peer's file behind a BAR, for clients that map it; `nil` under rule P, and where the window
    /// is part of a BAR that others share.
    public func peerWindowFile(_ bar: Int) -> WindowFile? {
        guard window.slices.contains(where: { $0.bar == bar && $0.offset == 0 }) else { return nil }
        return window.layout?.file(bar)
    }

    /// The peer-notify structure, for a function of its own.
    public var peerDoorbells: DoorbellTable { doorbells }

    /// Rule F: makes sure that these regions can be shown before anything else is made of them.
    /// Refuses those that cannot: the peer has to go (VPN-D-26).
    func layOutWindows(for regions: [PeerRegion]) throws(Refusal) {
        guard options.placement == .file, !regions.isEmpty else { return }
        let room: WindowLayout.Room =
            ownsWindows
            ? .made(headroom: options.windowHeadroom, limit: options.largestWindow)
            : .given(window.slices.map { UInt64($0.size) })
        // Windows that the driver mapped cannot be exchanged under it; in given ones the files can.
        let isFixed = isWindowFixed || (ownsWindows && context != nil)
        guard try window.layOut(for: regions, in: room, isFixed: isFixed) else { return }
        report?(.windows(window.slices.map { UInt64($0.size) }))
        windowsChanged?()
    }

    func place() {
        do throws(Refusal) {
            guard let description else { throw Refusal("vpci/order", "there is no table") }
            guard mirror.agreed != nil else {
                throw Refusal(
                    "vpci/features",
                    "the peer uses \(description.features.rawValue.hexadecimal),"
                        + " the driver takes \(mirror.offerToPeer.rawValue.hexadecimal)"
                )
            }
            let unsealed = description.regions.count { !$0.isSealed }
            guard unsealed == 0 || !options.requiresSealedMemory else {
                throw Refusal("mem/unsealed", "\(unsealed) regions can be truncated")
            }
            try window.place(description.regions)
            announced = description
            startMemoryCheck()
            post(.placed)
            report?(
                .placed(
                    regions: window.regions.count,
                    bytes: window.regions.reduce(0) { $0 &+ $1.size },
                    unsealed: unsealed,
                    generation: generation &+ 1
                )
            )
        } catch {
            report?(.refused(error))
            post(.placementFailed("\(error)"))
        }
    }

    func clearWindow() {
        if !window.clear() {
            report?(.refused(Refusal("limit/memory", "the window could not be cleared")))
        }
    }

    /// Looks now and then whether the memory of the peer and of the driver is still there.
    func startMemoryCheck() {
        guard memoryCheck == nil, window.isShowing || controlReceive != nil else { return }
        memoryCheck = loop.after(milliseconds: Self.memoryCheckMilliseconds) { [weak self] in
            self?.memoryCheck = nil
            self?.checkMemory()
        }
    }

    /// The peer has to go whose memory was cut, and a driver whose messages lie in such memory has to
    /// begin anew (HI-I11).
    private func checkMemory() {
        if let loss = window.loss {
            let refusal = Refusal(
                MemoryLoss.id,
                "the peer's memory: \(loss); its machine has to bring memory that stays"
            )
            report?(.refused(refusal))
            backend?.disconnect("\(refusal)")
        }
        if controlReceive != nil, let loss = context?.memory.loss {
            report?(
                .refused(
                    Refusal(
                        MemoryLoss.id,
                        "the driver's memory: \(loss); map memory that stays, and reset the device"
                    )
                )
            )
            fail(DeviceFault(MemoryLoss.id, address: loss.first))
        }
        startMemoryCheck()
    }

    func stopMemoryCheck() {
        if let source = memoryCheck { loop.remove(source) }
        memoryCheck = nil
    }
}
