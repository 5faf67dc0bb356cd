/// Has devices reach for the physical address of a page of this process: exactly what they would read
/// and overwrite if no IOMMU stood in between.
///
/// Between the trials and after them a good frame has to cross. The last line names the address, for
/// the kernel log to be searched.
enum StrayDMA {
    static func run(_ transmitter: NetEnd, _ receiver: NetEnd) throws {
        let marker: UInt8 = 0xc5
        let canary = try CanaryPage(holding: NetEnd.frame(marker: marker))
        let address = canary.physicalAddress
        let place = "0x\(DeviceProbe.hex(address))"

        try NetEnd.cross(transmitter, receiver, "before")
        let sent = try NetEnd.deliver(transmitter, receiver, transmitFrom: address)
        // A device that gets an error for a read may send what it likes, but not what is in the page.
        let wasRead = sent?.contains(marker) == true
        let arrived = sent.map { "\($0.count) bytes arrived" } ?? "nothing arrived"
        print("transmit buffer at \(place): \(arrived), \(transmitter.state)")

        try NetEnd.cross(transmitter, receiver, "after that")
        _ = try NetEnd.deliver(transmitter, receiver, receiveAt: address)
        let change = canary.firstChange
        print("receive buffer at \(place): \(receiver.state)")

        try NetEnd.cross(transmitter, receiver, "after both")
        try transmitter.stop()
        try receiver.stop()
        guard !wasRead, change == nil else {
            throw ProbeError.reached(address, isRead: wasRead, changedAt: change)
        }
        print("page \(place) was neither read nor written")
    }
}
